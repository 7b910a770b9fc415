import numpy as np
import pytest
from scipy import stats

from embedkit.detect.detector import Observation
from embedkit.detect.detectors.knn import KNN
from embedkit.detect.threshold import Threshold, fit_calibrated, quantile_threshold
from embedkit.errors import InvalidInput


@pytest.mark.parametrize("n", [1, 19, 20, 100, 1000])
def test_at_least_the_accepted_share_lies_at_or_below(n):
    scores = np.random.default_rng(n).normal(size=n)
    threshold = quantile_threshold(scores, accepted=0.95)
    assert threshold.value in scores
    assert np.mean(scores <= threshold.value) >= 0.95
    assert np.mean(scores < threshold.value) < 0.95


def test_interval_ends_are_the_binomial_order_statistics():
    n, p = 500, 0.95
    scores = np.arange(1.0, n + 1)  # the i-th smallest score is i
    threshold = quantile_threshold(scores, accepted=p)
    binomial = stats.binom(n, p)
    low = max(r for r in range(1, n + 1) if binomial.cdf(r - 1) <= 0.025)
    high = min(r for r in range(1, n + 1) if binomial.sf(r - 1) <= 0.025)
    assert (threshold.low, threshold.high) == (low, high)


def test_the_interval_covers_the_true_quantile():
    rng = np.random.default_rng(0)
    true = stats.norm.ppf(0.9)
    drawn = (quantile_threshold(rng.normal(size=200), accepted=0.9) for _ in range(2000))
    covered = np.mean([t.low <= true <= t.high for t in drawn])
    # 2,000 draws of a share of at least 0.95: three standard errors are 0.015
    assert 0.935 <= covered <= 0.99


def test_too_few_images_leave_the_upper_end_open():
    threshold = quantile_threshold(np.arange(10.0))
    assert threshold.high == np.inf
    assert threshold.value == 9


@pytest.mark.parametrize(
    ("scores", "accepted"),
    [([], 0.9), ([1.0, np.nan], 0.9), ([1.0], 0.0), ([1.0], 1.0), ([[1.0]], 0.5)],
)
def test_wrong_input(scores, accepted):
    with pytest.raises(InvalidInput, match="expected"):
        quantile_threshold(np.array(scores), accepted=accepted)


def test_survives_storage():
    threshold = quantile_threshold(np.arange(50.0), accepted=0.9)
    assert Threshold.from_arrays(threshold.to_arrays()) == threshold
    assert Threshold.from_arrays({"bank": np.zeros(3)}) is None


def test_calibration_accepts_new_known_images_at_the_wanted_rate():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(4000, 8)).astype(np.float32)
    labels = rng.integers(0, 3, 4000)
    fitted, threshold = fit_calibrated(KNN(), Observation(vectors, labels=labels), seed=1)
    assert threshold.n == 800
    fresh = fitted.score(Observation(rng.normal(size=(4000, 8)).astype(np.float32)))
    # binomial error of 800 calibration and 4,000 test images together: 0.0085
    assert np.mean(fresh <= threshold.value) == pytest.approx(0.95, abs=0.026)


def test_calibration_needs_images_to_hold_out():
    with pytest.raises(InvalidInput, match="enough images"):
        fit_calibrated(KNN(1), Observation(np.ones((2, 3), np.float32)))
