import numpy as np
import pytest

from embedkit.detect.detector import Observation
from embedkit.detect.detectors.residual import Residual
from embedkit.errors import InvalidInput


def test_score_is_the_part_that_the_principal_components_leave():
    """Wang et al. 2022, section 4.1, with components by singular value decomposition."""
    rng = np.random.default_rng(0)
    z = (rng.normal(size=(200, 7)) * [5, 4, 3, 2, 1, 0.5, 0.1] + 3).astype(np.float32)
    queries = rng.normal(size=(20, 7)).astype(np.float32)
    mean = z.astype(float).mean(axis=0)
    _, _, components = np.linalg.svd(z - mean, full_matrices=False)
    principal = components[:3]
    away = queries - mean
    expected = np.linalg.norm(away - away @ principal.T @ principal, axis=1)
    scores = Residual(principal=3).fit(Observation(z)).score(Observation(queries))
    np.testing.assert_allclose(scores, expected, rtol=1e-6)
    assert Residual().fit(Observation(z)).complement.directions.shape == (7, 4)


@pytest.mark.parametrize("principal", [7, -1])
def test_something_must_remain(principal):
    with pytest.raises(InvalidInput, match="expected 1 to 6 principal dimensions of 7"):
        Residual(principal=principal).fit(Observation(np.ones((9, 7), np.float32)))
