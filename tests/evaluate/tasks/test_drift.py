import numpy as np
import pytest

from embedkit.errors import InvalidInput
from embedkit.evaluate.context import Options
from embedkit.evaluate.tasks.drift import Drift

QUICK = Options(drift_streams=6)


@pytest.fixture
def result(make_context, source):
    context = make_context(
        train=source.dataset(400, name="train"),
        test=source.dataset(120, seed=1, name="test"),
        options=QUICK,
        shifted={"again": source.dataset(50, seed=9)},
    )
    return Drift(sizes=(10, 40)).run(context)


def test_metrics_follow_from_the_items(result):
    p_values = result.items["halves.mmd.p_values"]
    assert p_values.shape == (6, 2)
    share = result.metrics["halves.mmd.alarms"]
    assert share.value == np.mean(p_values[:, -1] < 0.05)
    early = p_values < 0.05 / 2
    first = [result.items["sizes"][row.argmax()] if row.any() else 40 for row in early]
    delay = result.metrics["halves.mmd.delay"]
    assert delay.value == np.median(first)
    # Of 6 streams the least and the largest hold the median with 97 %.
    assert delay.ci == (min(first), max(first))


def test_a_clear_change_is_noticed_and_none_is_not(result):
    for test in ("mmd", "classifier", "dimensions", "ood_score"):
        assert result.metrics[f"halves.{test}.alarms"].value == 1, test
        assert result.metrics[f"no_drift.{test}.alarms"].value <= 0.5, test
        assert f"no_drift.{test}.delay" not in result.metrics
    assert not result.metrics["no_drift.mmd.alarms"].higher_is_better
    assert result.metrics["halves.mmd.alarms"].higher_is_better


def test_images_that_run_out_are_not_looked_at_again(make_context, source):
    context = make_context(ood={"few": source.novel(12)}, options=QUICK)
    result = Drift(sizes=(10, 20, 50)).run(context)
    p_values = result.items["few.mmd.p_values"]
    np.testing.assert_array_equal(p_values[:, 1], p_values[:, 2])


@pytest.mark.parametrize("name", ["known", "no_drift"])
@pytest.mark.parametrize("kind", ["ood", "shifted"])
def test_a_set_does_not_take_the_place_of_a_stream_of_our_own(make_context, source, kind, name):
    context = make_context(**{kind: {name: source.novel(60)}}, options=QUICK)
    with pytest.raises(InvalidInput, match=f"got {name}; rename"):
        Drift().run(context)


def test_too_few_images(make_context, source):
    context = make_context(ood={"few": source.novel(5)}, options=QUICK)
    assert "fewer than the 10" in Drift(sizes=(10,)).run(context).warnings[0]
    small = Drift().run(make_context(train=source.dataset(40)))
    assert small.status == "skipped"
    assert "at least 60 training images" in small.warnings[0]
