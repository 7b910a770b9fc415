import numpy as np
import pytest
from scipy.special import logsumexp

from embedkit.detect.detector import Observation
from embedkit.detect.detectors.energy import Energy
from embedkit.errors import InvalidInput


@pytest.mark.parametrize("t", [0.5, 1.0, 10.0])
def test_score_is_the_free_energy(t):
    """Liu et al. 2020, equation 4: E(x) = -T log sum exp(f_i / T)."""
    logits = np.random.default_rng(0).normal(size=(30, 6), scale=40).astype(np.float32)
    known = Observation(np.zeros((30, 2), np.float32), logits=logits)
    expected = -t * logsumexp(logits.astype(float) / t, axis=1)
    fitted = Energy(t).fit(known)
    np.testing.assert_allclose(fitted.score(known), expected, rtol=1e-12)
    assert Energy().restore(fitted.state()) == fitted


def test_a_temperature_of_zero():
    with pytest.raises(InvalidInput, match="a temperature above 0"):
        Energy(0.0)
