import numpy as np
import pytest
from scipy.special import logsumexp
from sklearn.neighbors import KernelDensity, NearestNeighbors

from embedkit.detect.detector import Observation
from embedkit.detect.detectors.kde import KDE
from embedkit.errors import InvalidInput


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def sets():
    rng = np.random.default_rng(0)
    return unit(rng.normal(size=(200, 5))), unit(rng.normal(size=(30, 5)))


@pytest.mark.parametrize("h", [0.05, 0.5])
def test_score_is_minus_the_log_of_the_mean_kernel(sets, h):
    bank, queries = (s.astype(float) for s in sets)
    squares = ((queries[:, None] - bank[None]) ** 2).sum(axis=2)
    expected = np.log(200) - logsumexp(-squares / (2 * h * h), axis=1)
    scores = KDE(h).fit(Observation(sets[0])).score(Observation(sets[1]))
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)


def test_sklearns_density_differs_by_the_constant_of_the_dimension(sets):
    bank, queries = sets
    expected = KernelDensity(bandwidth=0.5).fit(bank).score_samples(queries)
    constant = 5 * np.log(0.5) + 2.5 * np.log(2 * np.pi)
    scores = KDE(0.5).fit(Observation(bank)).score(Observation(queries))
    np.testing.assert_allclose(scores, -expected - constant, rtol=1e-4, atol=1e-4)


def test_the_bandwidth_is_the_median_gap(sets):
    distances, _ = NearestNeighbors(n_neighbors=2).fit(sets[0]).kneighbors(sets[0])
    fitted = KDE().fit(Observation(sets[0]))
    assert fitted.bandwidth == pytest.approx(np.median(distances[:, 1]), rel=1e-3)


def test_the_kept_part_does_not_depend_on_the_order(sets):
    kept = [KDE(max_bank=50).fit(Observation(b)).bank for b in (sets[0], sets[0][::-1].copy())]
    np.testing.assert_array_equal(*kept)
    assert kept[0].shape == (50, 5)


def test_refusals(sets):
    with pytest.raises(InvalidInput, match="at least 2 known images or a bandwidth"):
        KDE().fit(Observation(sets[0][:1]))
    with pytest.raises(InvalidInput, match="a bandwidth and max_bank of at least 0"):
        KDE(bandwidth=-1)
