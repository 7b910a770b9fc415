import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture

from embedkit.detect.detector import Observation
from embedkit.detect.detectors.gmm import GMM
from embedkit.errors import InvalidInput


@pytest.fixture
def known():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), [60, 80, 100])
    mixing = rng.normal(size=(5, 5))
    vectors = (rng.normal(size=(3, 5)) * 4)[labels] + rng.normal(size=(240, 5)) @ mixing
    return Observation(vectors.astype(np.float32), labels=labels)


def test_score_is_minus_the_log_density(known):
    """The density of a mixture, term by term, with the fitted parameters."""
    fitted = GMM().fit(known)
    covariance = np.linalg.inv(fitted.whitening.T @ fitted.whitening)
    queries = np.random.default_rng(1).normal(size=(20, 5)).astype(np.float32)
    density = sum(
        w * multivariate_normal(m, covariance).pdf(queries)
        for w, m in zip(fitted.weights, fitted.means, strict=True)
    )
    scores = fitted.score(Observation(queries))
    np.testing.assert_allclose(scores, -np.log(density), rtol=1e-6)


def test_it_ends_at_sklearns_maximum(known):
    z = known.embeddings.astype(np.float64)
    start = np.stack([z[known.labels == c].mean(axis=0) for c in range(3)])
    peer = GaussianMixture(3, covariance_type="tied", means_init=start, tol=1e-9, max_iter=500)
    expected = -peer.fit(z).score_samples(z)
    np.testing.assert_allclose(GMM().fit(known).score(known), expected, rtol=1e-2, atol=1e-2)


def test_without_labels_the_groups_are_found(known):
    scores = GMM(components=3).fit(Observation(known.embeddings)).score(known)
    np.testing.assert_allclose(scores, GMM().fit(known).score(known), rtol=0.05, atol=0.05)


def test_refusals(known):
    with pytest.raises(InvalidInput, match="components >= 1 and a ridge above 0"):
        GMM(components=0)
    with pytest.raises(InvalidInput, match="at most 4 dimensions, got 240 of 5"):
        GMM(max_dim=4).fit(known)
