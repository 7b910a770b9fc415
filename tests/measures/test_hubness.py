import numpy as np
import pytest
from scipy.stats import skew
from sklearn.neighbors import NearestNeighbors

from embedkit.errors import InvalidInput
from embedkit.measures.hubness import (
    neighbour_purity,
    neighbours_of_each,
    occurrences,
    skewness,
)


def test_neighbours_are_those_of_scikit_learn_without_the_image_itself(rng):
    z = rng.normal(size=(60, 5)).astype(np.float32)
    found = neighbours_of_each(z, 7)
    peer = NearestNeighbors(n_neighbors=7, metric="cosine", algorithm="brute").fit(z)
    np.testing.assert_array_equal(found, peer.kneighbors(return_distance=False))
    counts = occurrences(found)
    assert counts.mean() == 7
    assert skewness(counts) == pytest.approx(skew(counts))


def test_equal_images_are_neighbours_and_never_their_own():
    z = np.ones((6, 3), np.float32)
    found = neighbours_of_each(z, 3)
    assert not (found == np.arange(6)[:, None]).any()
    assert all(len(set(row)) == 3 for row in found.tolist())


def test_purity_counts_the_class_of_the_neighbours():
    neighbours = np.array([[1, 2], [0, 2], [0, 1]])
    assert neighbour_purity(neighbours, np.array([0, 0, 1])).tolist() == [0.5, 0.5, 0]


def test_even_counts_have_no_skewness():
    assert skewness(np.array([4, 4, 4])) == 0


def test_more_neighbours_than_images_are_refused():
    with pytest.raises(InvalidInput, match="expected 1 to 3 neighbours, got 4"):
        neighbours_of_each(np.eye(4, dtype=np.float32), 4)
