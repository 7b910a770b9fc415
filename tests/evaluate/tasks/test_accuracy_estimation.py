import numpy as np
import pytest

from embedkit.evaluate.tasks.accuracy_estimation import AccuracyEstimation


def test_estimates_follow_their_papers(make_context, noisy):
    result = AccuracyEstimation().run(make_context(served=noisy))
    items = result.items
    found = {name: metric.value for name, metric in result.metrics.items()}
    assert found["true"] == np.mean(items["predictions"] == items["labels"])
    source, right = items["source_confidence"], items["source_correct"]
    shift = items["confidence"].mean() - source.mean()
    assert found["confidence"] == pytest.approx(right.mean() + shift)
    # ATC: the threshold t with P(source confidence > t) = source accuracy.
    threshold = np.sort(source)[int((~right).sum()) - 1]
    assert np.mean(source > threshold) == pytest.approx(right.mean())
    assert found["threshold"] == pytest.approx(np.mean(items["confidence"] > threshold))
    assert found["agreement"] == np.mean(items["neighbours"] == items["predictions"])
    assert found["stability"] == np.mean(items["augmented"] == items["predictions"])
    for name in ("confidence", "threshold", "agreement", "stability"):
        assert found[f"{name}_error"] == pytest.approx(abs(found[name] - found["true"]))
    assert found["threshold_error"] < 0.15


def test_labels_of_the_test_images_change_no_estimate(make_context, noisy, source):
    from dataclasses import replace

    test = source.dataset(80, seed=1)
    wrong = replace(test, labels=(test.labels + 1) % 4, digest="")
    first, second = (
        AccuracyEstimation().run(make_context(served=noisy, test=t)).metrics
        for t in (test, wrong)
    )
    for name in ("confidence", "threshold", "agreement", "stability"):
        assert first[name].value == second[name].value
    assert first["true"].value != second["true"].value


def test_intervals_are_as_wide_as_the_draw_of_the_images(make_context, noisy):
    metrics = AccuracyEstimation().run(make_context(served=noisy)).metrics
    # Shares of the test images alone: close to the normal interval of a share.
    for name in ("agreement", "stability"):
        found = metrics[name]
        half = 1.96 * np.sqrt(found.value * (1 - found.value) / 80)
        assert found.ci[1] - found.ci[0] == pytest.approx(2 * half, rel=0.25)
    # The other two also depend on the draw of the source.
    for name in ("confidence", "threshold", "threshold_error"):
        low, high = metrics[name].ci
        assert low <= metrics[name].value <= high
        assert low < high
