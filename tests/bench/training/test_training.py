"""The training bench: every side takes its turn, and ratios are those within a round."""

import pytest

from embedkit.bench.training.run import Plan, ratio, run, take_turns
from embedkit.errors import InvalidInput
from embedkit.train.recipe import Recipe

RECIPE = Recipe.from_dict(
    {
        "data": {"source": "digits", "limit": 64},
        "encoder": {"name": "resnet", "blocks": [1], "width": 4},
        "objective": {"name": "simclr"},
        "projection": {"hidden": 8, "dim": 4},
        "schedule": {"batch_size": 16},
        "run": {"log_steps": 2},
    }
)


def test_loop_and_bare_step_are_measured_in_every_precision():
    said: list[str] = []
    figures = run(Plan(RECIPE, rounds=2), said.append)
    assert set(figures["images_per_s"]) == {"bare fp32", "loop fp32", "bare bf16", "loop bf16"}
    assert len(said) == 8
    for found in figures["efficiency"].values():
        assert found["n"] == 2
        assert 0 < found["min"] <= found["median"] <= found["max"]


def test_ratios_are_taken_within_a_round():
    found = ratio([10.0, 40.0, 90.0], [5.0, 10.0, 30.0])
    assert found["rounds"] == [2.0, 4.0, 3.0]
    assert found["median"] == 3.0
    assert found["ci"] == [2.0, 4.0]


def test_each_side_has_as_many_turns():
    calls: list[str] = []
    sides = {n: lambda n=n: float(calls.append(n) or 1.0) for n in ("a", "b")}
    assert take_turns(sides, 3) == {"a": [1.0] * 3, "b": [1.0] * 3}
    assert sorted(calls) == ["a"] * 3 + ["b"] * 3


@pytest.mark.parametrize("values", [{"rounds": 0}, {"epochs": 1}, {"precisions": ("fp8",)}])
def test_what_cannot_be_is_refused(values):
    with pytest.raises(InvalidInput, match="at least 1 round"):
        Plan(RECIPE, **values)
