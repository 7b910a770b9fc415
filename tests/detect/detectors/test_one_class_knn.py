import numpy as np
import pytest

from embedkit.detect.detector import Observation
from embedkit.detect.detectors.one_class_knn import OneClassKNN
from embedkit.errors import InvalidInput


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def sets():
    rng = np.random.default_rng(0)
    return tuple(unit(rng.normal(2, 1, size=(n, 6))).astype(np.float32) for n in (100, 20))


@pytest.mark.parametrize(("k", "shift"), [(2, True), (5, True), (2, False)])
def test_score_follows_the_paper(sets, k, shift):
    """Reiss and Hoshen 2023, equation 4 and section 3.4, by sorting everything."""
    train, test = (s.astype(float) for s in sets)
    centre = train.mean(axis=0) if shift else 0
    bank, queries = unit(train - centre), unit(test - centre)
    squares = ((queries[:, None] - bank[None]) ** 2).sum(axis=2)
    expected = np.sort(squares, axis=1)[:, :k].sum(axis=1)
    scores = OneClassKNN(k, shift).fit(Observation(sets[0])).score(Observation(sets[1]))
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)


def test_a_narrow_class_is_seen_from_its_centre():
    """All known images lie along one direction; off the line is novel only when shifted."""
    rng = np.random.default_rng(0)
    line = np.array([[10, 0, 0]]) + rng.normal(size=(200, 3)) * [0, 1, 0.01]
    off = np.array([[10, 0, 1.0], [10, 0, -1.0]])
    known, novel = (Observation(unit(v).astype(np.float32)) for v in (line, off))
    shifted = OneClassKNN().fit(known)
    assert shifted.score(novel).min() > 10 * np.quantile(shifted.score(known), 0.95)


def test_limits(sets):
    with pytest.raises(InvalidInput, match="at least k=2 known images, got 1"):
        OneClassKNN().fit(Observation(sets[0][:1]))
    with pytest.raises(InvalidInput, match="expected k >= 1"):
        OneClassKNN(k=0)
