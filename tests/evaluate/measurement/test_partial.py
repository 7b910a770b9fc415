import pytest

from embedkit.errors import ModelChanged, NotFound
from embedkit.evaluate.measurement.partial import attempt


def fail(error):
    raise error


def test_what_works_is_returned():
    warnings: list[str] = []
    assert attempt("part", lambda: 3, warnings) == 3
    assert warnings == []


def test_what_fails_is_said_once():
    warnings = ["before"]
    for _ in range(2):
        assert attempt("baseline x", lambda: fail(NotFound("no bundle")), warnings) is None
    assert warnings == ["before", "no baseline x: no bundle"]


@pytest.mark.parametrize("error", [ModelChanged("b"), ZeroDivisionError(), KeyboardInterrupt()])
def test_a_changed_model_a_defect_and_an_interrupt_pass(error):
    with pytest.raises(type(error)):
        attempt("part", lambda: fail(error), [])
