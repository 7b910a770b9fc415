import numpy as np
from scipy.special import softmax
from scipy.stats import entropy

from embedkit.detect.detector import Observation
from embedkit.detect.detectors.kl_matching import KLMatching


def observe(logits):
    return Observation(np.zeros((len(logits), 2), np.float32), logits=logits)


def test_score_follows_the_paper():
    """Hendrycks et al. 2022: min_k KL(p || d_k), d_k the mean posterior predicted as k."""
    rng = np.random.default_rng(0)
    train, test = (rng.normal(size=(n, 5), scale=2).astype(np.float32) for n in (200, 20))
    train[:, 3] = -50  # a class that is never predicted
    posteriors = softmax(train.astype(float), axis=1)
    typical = [posteriors[posteriors.argmax(1) == k].mean(axis=0) for k in (0, 1, 2, 4)]
    expected = [
        min(entropy(p, d) for d in typical) for p in softmax(test.astype(float), axis=1)
    ]
    fitted = KLMatching().fit(observe(train))
    assert fitted.typical.shape == (4, 5)
    np.testing.assert_allclose(fitted.score(observe(test)), expected, rtol=1e-8)


def test_probabilities_of_zero_are_no_obstacle():
    sure = observe(np.array([[2000, 0, 0], [0, 2000, 0]], np.float32))
    scores = KLMatching().fit(sure).score(observe(np.array([[0, 0, 2000.0]], np.float32)))
    assert np.isfinite(scores).all()
    assert scores[0] > 500
