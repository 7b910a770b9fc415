import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss

from embedkit.errors import InvalidInput
from embedkit.measures.calibration import (
    brier,
    calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability,
    scaled,
)


def by_the_definition(confidence, correct, bins):
    """Guo et al.: bins (lo, hi], and 0 in the first."""
    total = 0.0
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        inside |= (b == 0) & (confidence == 0)
        if inside.any():
            gap = abs(correct[inside].mean() - confidence[inside].mean())
            total += inside.sum() / len(confidence) * gap
    return total


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_equal_width_follows_the_definition(rng, bins):
    confidence = np.concatenate([rng.random(300), [0.0, 1.0, 1.0, 0.5]])
    correct = rng.random(304) < confidence
    expected = by_the_definition(confidence, correct, bins)
    assert calibration_error(confidence, correct, bins=bins) == pytest.approx(expected)


def test_a_confidence_of_exactly_one_counts_in_the_last_bin():
    # The example of torchmetrics#3510, where the last bin lost it: 0.525 instead of 0.475.
    confidence, correct = np.array([1.0, 0.95]), np.array([False, True])
    assert calibration_error(confidence, correct, bins=10) == pytest.approx(0.475)


def test_equal_mass_bins_hold_equally_many(rng):
    confidence, correct = rng.random(90) ** 3, rng.random(90) < 0.5
    mean, accuracy, counts = reliability(confidence, correct, bins=9, width="mass")
    assert counts.tolist() == [10] * 9
    order = np.argsort(confidence)
    blocks = [order[i : i + 10] for i in range(0, 90, 10)]
    np.testing.assert_allclose(mean, [confidence[b].mean() for b in blocks])
    gaps = [abs(correct[b].mean() - confidence[b].mean()) for b in blocks]
    found = calibration_error(confidence, correct, bins=9, width="mass")
    assert found == pytest.approx(np.mean(gaps))
    assert accuracy.max() <= 1


def test_brier_and_likelihood(rng):
    shares = rng.dirichlet(np.ones(4), 50)
    labels = rng.integers(0, 4, 50)
    one_by_one = [
        sum((p - (c == y)) ** 2 for c, p in enumerate(row))
        for row, y in zip(shares, labels, strict=True)
    ]
    np.testing.assert_allclose(brier(shares, labels), one_by_one)
    expected = log_loss(labels, shares, labels=range(4))
    assert negative_log_likelihood(shares, labels).mean() == pytest.approx(expected)


def test_certain_and_right_costs_nothing_and_certain_and_wrong_costs_much():
    shares = np.eye(2)
    assert negative_log_likelihood(shares, np.array([0, 0])).tolist() == [0, -np.log(1e-12)]


@pytest.mark.parametrize("truth", [0.4, 1.0, 3.0])
def test_the_temperature_that_made_the_labels_is_found(rng, truth):
    logits = rng.normal(0, 3, (6000, 5))
    shares = scaled(logits, truth)
    labels = (rng.random((6000, 1)) > shares.cumsum(axis=1)).sum(axis=1).clip(max=4)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(truth, rel=0.1)
    loss = lambda t: log_loss(labels, scaled(logits, t), labels=range(5))  # noqa: E731
    peer = minimize_scalar(loss, bounds=(0.05, 20), method="bounded")
    assert found == pytest.approx(peer.x, rel=1e-3)


def test_wrong_input_is_answered_in_words():
    with pytest.raises(InvalidInput, match="from 0 to 1"):
        calibration_error(np.array([1.5]), np.array([True]))
    with pytest.raises(InvalidInput, match="one confidence and one outcome"):
        calibration_error(np.array([0.5, 0.5]), np.array([True]))
    with pytest.raises(InvalidInput, match="logits"):
        fit_temperature(np.zeros((0, 3)), np.zeros(0, int))
