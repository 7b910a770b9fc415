import numpy as np

from embedkit.detect.clusters import kmeans


def test_separate_groups_are_found():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 200)
    vectors = (10 * np.eye(3)[truth] + rng.normal(size=(200, 3))).astype(np.float32)
    groups = kmeans(vectors, 3)
    pairs = {(a, b) for a, b in zip(groups.tolist(), truth.tolist(), strict=True)}
    assert len(pairs) == 3


def test_the_order_does_not_matter():
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(300, 4)).astype(np.float32)
    order = rng.permutation(300)
    np.testing.assert_array_equal(kmeans(vectors[order], 7), kmeans(vectors, 7)[order])


def test_it_ends_where_lloyd_ends():
    """Each vector is with the nearest mean, and each mean is that of its vectors."""
    vectors = np.random.default_rng(2).normal(size=(300, 4)).astype(np.float32)
    groups = kmeans(vectors, 5)
    means = np.stack([vectors[groups == g].mean(axis=0) for g in range(5)])
    nearest = ((vectors[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
    np.testing.assert_array_equal(nearest, groups)


def test_more_clusters_than_images_and_copies():
    assert len(set(kmeans(np.eye(3, dtype=np.float32), 9).tolist())) == 3
    assert set(kmeans(np.ones((5, 2), np.float32), 4).tolist()) == {0}
