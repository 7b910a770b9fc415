import numpy as np
import pytest

from embedkit.detect.detector import Observation
from embedkit.detect.detectors.msp import MSP
from embedkit.errors import InvalidInput

LOGITS = np.array([[2.0, 0, 0], [0, 0, 0], [1000, -1000, 0]], np.float32)
KNOWN = Observation(np.zeros((3, 2), np.float32), logits=LOGITS)


@pytest.mark.parametrize("t", [1.0, 2.0])
def test_score_is_minus_the_largest_softmax(t):
    """Hendrycks and Gimpel 2017, written out for the first row."""
    first = np.exp(2 / t) / (np.exp(2 / t) + 2)
    scores = MSP(t).fit(KNOWN).score(KNOWN)
    np.testing.assert_allclose(scores, [-first, -1 / 3, -1], rtol=1e-12)


def test_settings_survive_a_state():
    fitted = MSP(3.0).fit(KNOWN)
    assert MSP().restore(fitted.state()) == fitted


@pytest.mark.parametrize("t", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_is_none(t):
    with pytest.raises(InvalidInput, match="a temperature above 0"):
        MSP(t)
