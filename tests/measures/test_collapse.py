import numpy as np
import pytest

from embedkit.errors import InvalidInput
from embedkit.measures.collapse import neural_collapse, tolerance


def simplex(classes):
    """An equiangular tight frame: what class means collapse to."""
    return np.eye(classes) - 1 / classes


def test_full_collapse_is_zero():
    labels = np.repeat(np.arange(5), 8)
    z = simplex(5)[labels].astype(np.float32)
    found = neural_collapse(z, labels)
    for value in (found.within, found.norms, found.angles, found.disagreement):
        assert value == pytest.approx(0, abs=1e-6)


def test_it_follows_the_paper(rng):
    labels = rng.permutation(np.repeat(np.arange(4), 25))
    z = (simplex(4) * [[1], [2], [1], [1]])[labels] + 0.2 * rng.normal(size=(100, 4))
    means = np.stack([z[labels == c].mean(axis=0) for c in range(4)])
    centred = means - means.mean(axis=0)
    within = sum(np.cov(z[labels == c], rowvar=False, bias=True) * 25 / 100 for c in range(4))
    between = centred.T @ centred / 4
    found = neural_collapse(z.astype(np.float32), labels)
    expected = np.trace(within @ np.linalg.pinv(between, rcond=1e-10)) / 4
    assert found.within == pytest.approx(expected, rel=1e-4)
    lengths = np.linalg.norm(centred, axis=1)
    assert found.norms == pytest.approx(lengths.std() / lengths.mean(), rel=1e-5)
    cosines = (centred @ centred.T) / np.outer(lengths, lengths)
    off = cosines[~np.eye(4, dtype=bool)]
    assert found.angles == pytest.approx(np.abs(off + 1 / 3).mean(), rel=1e-5)
    gaps = np.linalg.norm(z[:, None] - means, axis=2)
    assert found.disagreement == np.mean(gaps.argmin(axis=1) != labels)


def test_equal_class_means_have_no_ratio():
    found = neural_collapse(np.full((12, 3), 0.3, np.float32), np.arange(12) % 3)
    assert np.isnan(found.within)
    assert (found.norms, found.angles) == (0, 1)
    assert found.disagreement == pytest.approx(2 / 3)


def test_tolerance_is_the_mean_over_pairs(rng):
    z = rng.normal(size=(20, 4))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    labels = np.arange(20) % 3
    pairs = [z[i] @ z[j] for i in range(20) for j in range(i) if labels[i] == labels[j]]
    assert tolerance(z.astype(np.float32), labels) == pytest.approx(np.mean(pairs), abs=1e-6)
    assert np.isnan(tolerance(z[:3].astype(np.float32), np.arange(3)))


def test_one_class_is_refused():
    with pytest.raises(InvalidInput, match=r"at least two classes, got only \[2\]"):
        neural_collapse(np.eye(3, dtype=np.float32), np.full(3, 2))
    with pytest.raises(InvalidInput, match="labels"):
        tolerance(np.eye(3, dtype=np.float32), np.zeros(2, int))
