import numpy as np
import pytest
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import NearestCentroid

from embedkit.errors import InvalidInput
from embedkit.measures.probes import naive_bayes, nearest_centroid


@pytest.fixture
def sets(rng):
    labels = rng.integers(0, 4, 160)
    z = (rng.normal(size=(4, 6))[labels] + 0.9 * rng.normal(size=(160, 6))).astype(np.float32)
    return z[:100], labels[:100], z[100:], labels[100:]


def test_class_means_agree_with_scikit_learn(sets):
    train, y, test, wanted = sets
    unit = lambda z: z / np.linalg.norm(z, axis=1, keepdims=True)  # noqa: E731
    peer = NearestCentroid().fit(unit(train), y)
    # On the sphere the nearest mean by distance is that by cosine once it has length 1 too.
    cosines = unit(test) @ unit(peer.centroids_).T
    found = nearest_centroid(train, y, test, classes=4)
    np.testing.assert_array_equal(found, cosines.argmax(axis=1))
    assert 0.4 < (found == wanted).mean() < 1


def test_naive_bayes_agrees_with_scikit_learn(sets):
    train, y, test, _ = sets
    peer = GaussianNB().fit(train.astype(float), y)
    found = naive_bayes(train, y, test, classes=4)
    np.testing.assert_array_equal(found, peer.predict(test.astype(float)))


@pytest.mark.parametrize("probe", [nearest_centroid, naive_bayes])
def test_a_class_without_images_is_never_predicted(sets, probe):
    train, y, test, _ = sets
    kept = y != 2
    assert not (probe(train[kept], y[kept], test, classes=4) == 2).any()


@pytest.mark.parametrize("probe", [nearest_centroid, naive_bayes])
def test_equal_embeddings_get_the_first_class(probe):
    z = np.full((12, 5), 5**-0.5, np.float32)
    assert probe(z, np.arange(12) % 3, z, classes=3).tolist() == [0] * 12


@pytest.mark.parametrize("probe", [nearest_centroid, naive_bayes])
def test_wrong_input_is_answered_in_words(probe):
    z = np.eye(3, dtype=np.float32)
    with pytest.raises(InvalidInput, match="same d"):
        probe(z, np.arange(3), z[:, :2], classes=3)
    with pytest.raises(InvalidInput, match="labels from 0 to 1, got 0 to 2"):
        probe(z, np.arange(3), z, classes=2)
    with pytest.raises(InvalidInput, match="one label per training image"):
        probe(z, np.arange(2), z, classes=3)
