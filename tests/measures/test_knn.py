import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from sklearn.neighbors import KNeighborsClassifier

import embedkit.measures.knn as knn_module
from embedkit.errors import InvalidInput
from embedkit.measures.knn import nearest, unit, weighted_knn


def reference(train_z, train_y, test_z, k, temperature, classes):
    """The definition, one image and one neighbour at a time."""
    predictions = []
    for z in test_z:
        cosines = [float(np.float32(np.dot(z, other))) for other in train_z]
        order = sorted(range(len(train_z)), key=lambda i: (-cosines[i], i))[:k]
        votes = [0.0] * classes
        for i in order:
            votes[train_y[i]] += math.exp((cosines[i] - cosines[order[0]]) / temperature)
        predictions.append(votes.index(max(votes)))
    return predictions


@pytest.fixture
def clusters(rng):
    """600 + 200 unit vectors in 24 dimensions, of 5 overlapping classes."""
    centres = rng.normal(size=(5, 24))
    labels = rng.integers(0, 5, 800)
    z = unit(centres[labels] + 2.0 * rng.normal(size=(800, 24)))
    return z[:600], labels[:600], z[600:], labels[600:]


@pytest.mark.parametrize("temperature", [0.07, 0.5, 0.001])
def test_it_is_the_definition(clusters, temperature):
    train_z, train_y, test_z, _ = clusters
    predicted = weighted_knn(
        train_z, train_y, test_z, ks=(1, 7, 200), temperature=temperature, classes=5
    )
    for k in (1, 7, 200):
        expected = reference(train_z, train_y, test_z[:40], k, temperature, 5)
        assert predicted[k][:40].tolist() == expected


def test_it_agrees_with_scikit_learn(clusters):
    train_z, train_y, test_z, test_y = clusters
    predicted = weighted_knn(train_z, train_y, test_z, classes=5)
    assert list(predicted) == [1, 5, 20, 200]
    for k, labels in predicted.items():
        peer = KNeighborsClassifier(
            k, weights=lambda d: np.exp((1 - d) / 0.07), metric="cosine", algorithm="brute"
        ).fit(train_z, train_y)
        np.testing.assert_array_equal(labels, peer.predict(test_z))
        assert labels.dtype == np.int64
        assert (labels == test_y).mean() > 0.5


def test_the_length_of_vectors_does_not_matter(clusters, rng):
    train_z, train_y, test_z, _ = clusters
    scaled = train_z * rng.uniform(0.5, 20, (600, 1)).astype(np.float32)
    expected = weighted_knn(train_z, train_y, test_z, classes=5)
    found = weighted_knn(scaled, train_y, test_z * 3, classes=5)
    for k in expected:
        np.testing.assert_array_equal(found[k], expected[k])


def test_blocks_give_what_one_piece_gives(clusters, monkeypatch):
    train_z, train_y, test_z, _ = clusters
    expected = weighted_knn(train_z, train_y, test_z, classes=5)
    monkeypatch.setattr(knn_module, "_BLOCK_BYTES", 4 * 600 * 7)
    found = weighted_knn(train_z, train_y, test_z, classes=5)
    for k in expected:
        np.testing.assert_array_equal(found[k], expected[k])


def test_k_above_the_number_of_images_means_all_of_them(clusters):
    train_z, train_y, test_z, _ = clusters
    predicted = weighted_knn(train_z[:6], train_y[:6], test_z, ks=(6, 200), classes=5)
    np.testing.assert_array_equal(predicted[6], predicted[200])


def test_equal_votes_go_to_the_smaller_class():
    train = np.eye(2, dtype=np.float32)
    query = np.array([[1.0, 1.0]], np.float32)
    for labels, winner in (([3, 1], 1), ([1, 3], 1)):
        assert weighted_knn(train, np.array(labels), query, ks=(2,), classes=4)[2] == [winner]


def test_equal_neighbours_are_taken_by_row_number():
    train = np.ones((5, 2), np.float32)
    rows, cosines = nearest(train, train[:1], 3)
    assert rows.tolist() == [[0, 1, 2]]
    np.testing.assert_allclose(cosines, 1.0, rtol=1e-6)


def test_a_collapsed_embedding_predicts_the_class_of_the_first_images():
    labels = np.array([2, 2, 0, 0, 0, 1])
    predicted = weighted_knn(
        np.ones((6, 3), np.float32), labels, np.ones((4, 3), np.float32), ks=(1, 5), classes=3
    )
    assert predicted[1].tolist() == [2] * 4
    assert predicted[5].tolist() == [0] * 4


@settings(deadline=None)
@given(
    similarities=arrays(
        np.float32,
        array_shapes(min_dims=2, max_dims=2, max_side=25),
        elements=st.sampled_from([-1.0, -0.5, 0.0, 0.25, 0.5, 1.0]),
    ),
    data=st.data(),
)
def test_the_largest_columns_are_those_of_a_stable_sort(similarities, data):
    k = data.draw(st.integers(1, similarities.shape[1]))
    expected = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(knn_module.largest(similarities, k), expected)


def test_nearest_gives_the_cosines_best_first(clusters):
    train_z, _, test_z, _ = clusters
    rows, cosines = nearest(train_z, test_z, 10)
    assert (np.diff(cosines, axis=1) <= 0).all()
    np.testing.assert_allclose(
        cosines, np.take_along_axis(test_z @ train_z.T, rows, axis=1), atol=1e-6
    )


def test_unit_vectors_have_length_one_and_zero_stays_zero():
    z = unit(np.array([[3.0, 4.0], [0.0, 0.0]]))
    np.testing.assert_allclose(z, [[0.6, 0.8], [0.0, 0.0]], rtol=1e-6)
    assert z.dtype == np.float32


Z, Y = np.ones((3, 2), np.float32), np.array([0, 1, 1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_z": np.ones((3, 4), np.float32)}, r"same d, got \(3, 2\) and \(3, 4\)"),
        ({"test_z": np.ones(2, np.float32)}, r"got \(3, 2\) and \(2,\)"),
        ({"test_z": Z[:0]}, "at least one image in each set, got 3 and 0"),
        ({"train_z": Z[:0], "train_y": Y[:0]}, "at least one image in each set, got 0 and 3"),
        ({"train_y": Y[:2]}, r"one label per training image, got \(2,\) for 3"),
        ({"train_y": np.array([0, 1, 2])}, "labels from 0 to 1, got 0 to 2"),
        ({"train_y": np.array([0, 1, -1])}, "labels from 0 to 1, got -1 to 1"),
        ({"ks": ()}, "expected ks of at least 1"),
        ({"ks": (1, 0)}, r"got \(1, 0\) and 0.07"),
        ({"temperature": 0.0}, "a temperature above 0"),
        ({"temperature": float("nan")}, "a temperature above 0"),
        ({"train_z": np.full((3, 2), np.nan, np.float32)}, "finite embeddings, got 6 values"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    arguments = {"train_z": Z, "train_y": Y, "test_z": Z, "ks": (1,), "classes": 2, **change}
    with pytest.raises(InvalidInput, match=message):
        weighted_knn(
            arguments.pop("train_z"),
            arguments.pop("train_y"),
            arguments.pop("test_z"),
            **arguments,
        )


@pytest.mark.parametrize("k", [0, 4])
def test_a_number_of_neighbours_that_there_are_not_is_refused(k):
    with pytest.raises(InvalidInput, match=f"expected 1 to 3 neighbours, got {k}"):
        nearest(Z, Z, k)


def test_raw_pixels_of_real_clothes(test_data):
    """scikit-learn's cosine neighbours on real images, 8,000 against 500."""
    with np.load(test_data / "fashion_mnist.npz") as archive:
        train_z = unit(archive["x_train"][:8000].reshape(8000, -1))
        test_z = unit(archive["x_test"][:500].reshape(500, -1))
        train_y, test_y = archive["y_train"][:8000], archive["y_test"][:500]
    predicted = weighted_knn(train_z, train_y, test_z, ks=(20,), classes=10)[20]
    peer = KNeighborsClassifier(
        20, weights=lambda d: np.exp((1 - d) / 0.07), metric="cosine", algorithm="brute"
    ).fit(train_z, train_y)
    assert (predicted == peer.predict(test_z)).mean() >= 0.998  # float32 ties at rank 20
    assert 0.78 < (predicted == test_y).mean() < 0.86
