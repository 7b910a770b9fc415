import numpy as np
import pytest
from scipy.special import logsumexp

from embedkit.detect.detector import Observation
from embedkit.detect.detectors.nnguide import NNGuide
from embedkit.errors import InvalidInput


def observe(rng, n):
    z = rng.normal(size=(n, 6))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    return Observation(z.astype(np.float32), logits=rng.normal(size=(n, 4)).astype(np.float32))


def test_score_follows_the_paper():
    """Park et al. 2023, equations 5 and 6: S_base(x) times the mean of the top k guidances."""
    rng = np.random.default_rng(0)
    train, test = observe(rng, 120), observe(rng, 20)
    confidence = logsumexp(train.logits.astype(float), axis=1)
    expected = []
    for z, logits in zip(test.embeddings, test.logits, strict=True):
        guidances = sorted(confidence * (train.embeddings.astype(float) @ z))[-7:]
        expected.append(-logsumexp(logits.astype(float)) * np.mean(guidances))
    scores = NNGuide(k=7).fit(train).score(test)
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_limits():
    few = observe(np.random.default_rng(0), 5)
    with pytest.raises(InvalidInput, match="at least k=10 known images, got 5"):
        NNGuide().fit(few)
    with pytest.raises(InvalidInput, match="max_bank 0 or at least k"):
        NNGuide(k=5, max_bank=4)
    assert len(NNGuide(k=2, max_bank=3).fit(few).bank) == 3
