import numpy as np
from scipy.special import softmax
from scipy.stats import entropy

from embedkit.detect.detector import Observation
from embedkit.detect.detectors.entropy import Entropy


def test_score_is_shannons_entropy():
    logits = np.random.default_rng(0).normal(size=(30, 6), scale=3).astype(np.float32)
    known = Observation(np.zeros((30, 2), np.float32), logits=logits)
    expected = entropy(softmax(logits.astype(float), axis=1), axis=1)
    np.testing.assert_allclose(Entropy().fit(known).score(known), expected, rtol=1e-10)


def test_certain_and_undecided():
    logits = np.array([[1000, 0], [0, 0]], np.float32)
    known = Observation(np.zeros((2, 2), np.float32), logits=logits)
    np.testing.assert_allclose(Entropy().fit(known).score(known), [0, np.log(2)])
