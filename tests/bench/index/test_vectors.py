import numpy as np
import pytest

from embedkit.bench.index.kinds import KINDS, kind_named
from embedkit.bench.index.vectors import clustered, from_file, recall, truth
from embedkit.errors import InvalidInput


def test_the_mixture_is_seeded_of_unit_length_and_has_neighbours():
    first, same, other = (clustered(900, 16, queries=40, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.stored, same.stored)
    assert not np.array_equal(first.queries, other.queries)
    assert (first.stored.shape, first.queries.shape) == ((900, 16), (40, 16))
    np.testing.assert_allclose(np.linalg.norm(first.stored, axis=1), 1, rtol=1e-5)
    cosines = np.sort(first.queries @ first.stored.T, axis=1)
    # Isotropic noise of 16 dimensions has its tenth neighbour far below.
    noise = np.random.default_rng(0).normal(size=(940, 16))
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    apart = np.sort(noise[900:] @ noise[:900].T, axis=1)
    assert np.median(cosines[:, -10]) > np.median(apart[:, -10]) + 0.05


def test_truth_is_the_largest_inner_products():
    vectors = clustered(500, 8, queries=20)
    expected = np.argsort(-(vectors.queries @ vectors.stored.T), axis=1)[:, :5]
    assert recall(truth(vectors, 5), expected) == 1


def test_recall_counts_what_was_found():
    true = np.array([[1, 2], [3, 4]])
    assert recall(np.array([[2, 9], [4, 3]]), true) == 0.75
    assert recall(np.array([[-1, -1], [-1, -1]]), true) == 0


def test_embeddings_from_a_file(tmp_path):
    table = np.random.default_rng(0).normal(size=(100, 6)).astype(np.float32)
    np.savez(tmp_path / "a.npz", embeddings=table, labels=np.arange(100))
    vectors = from_file(tmp_path / "a.npz", queries=1000)
    assert (vectors.name, len(vectors.stored), len(vectors.queries)) == ("a", 90, 10)
    everything = np.concatenate([vectors.stored, vectors.queries])
    assert len(np.unique(everything, axis=0)) == 100
    np.savez(tmp_path / "b.npz", x=table, y=table)
    with pytest.raises(InvalidInput, match="one array 'embeddings'"):
        from_file(tmp_path / "b.npz")


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(k, marks=pytest.mark.slow if k.name == "pq" else (), id=k.name)
        for k in KINDS
    ],
)
def test_every_bare_index_finds_more_when_it_tries_harder(kind):
    vectors = clustered(1000, 16, queries=100)
    true = truth(vectors, 10)
    index = kind.build(vectors.stored)
    found = [
        recall(index.search(vectors.queries, 10, params=kind.turned(value))[1], true)
        for value in (kind.values[0], kind.values[-1])
    ]
    assert found[0] <= found[1]
    assert found[1] > 0.95
    if kind.name == "flat":
        assert found == [1, 1]


def test_an_unknown_kind_names_the_known_ones():
    with pytest.raises(InvalidInput, match="flat"):
        kind_named("flatt")
