import numpy as np
import pytest
from scipy.special import softmax

from embedkit.detect.detector import Observation
from embedkit.detect.detectors.gen import GEN
from embedkit.errors import InvalidInput

LOGITS = np.random.default_rng(0).normal(size=(30, 7), scale=3).astype(np.float32)
KNOWN = Observation(np.zeros((30, 2), np.float32), logits=LOGITS)


@pytest.mark.parametrize(("gamma", "top"), [(0.1, 100), (0.1, 3), (0.9, 7)])
def test_score_follows_the_paper(gamma, top):
    """Liu et al. 2023, equations 3 and 4, class by class from the most probable on."""
    expected = np.zeros(30)
    for row, p in enumerate(softmax(LOGITS.astype(float), axis=1)):
        for value in sorted(p, reverse=True)[:top]:
            expected[row] += value**gamma * (1 - value) ** gamma
    fitted = GEN(gamma, top).fit(KNOWN)
    np.testing.assert_allclose(fitted.score(KNOWN), expected, rtol=1e-10)
    assert GEN().restore(fitted.state()) == fitted


@pytest.mark.parametrize("settings", [{"gamma": 0}, {"gamma": 1}, {"top": 0}])
def test_settings_out_of_range(settings):
    with pytest.raises(InvalidInput, match=r"gamma in \(0, 1\) and top >= 1"):
        GEN(**settings)
