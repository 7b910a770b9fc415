import numpy as np
import pytest

from embedkit.detect.detector import Observation
from embedkit.detect.detectors.knn import KNN
from embedkit.errors import InvalidInput


def reference(bank, queries, k):
    """Equation 1 of Sun et al. 2022: ||z - z_(k)|| over unit vectors, by sorting everything."""
    bank = bank / np.linalg.norm(bank, axis=1, keepdims=True)
    queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    distances = np.linalg.norm(
        queries[:, None].astype(float) - bank[None].astype(float), axis=2
    )
    return np.sort(distances, axis=1)[:, k - 1]


@pytest.fixture
def vectors():
    rng = np.random.default_rng(0)
    return rng.normal(size=(300, 16)).astype(np.float32), rng.normal(size=(40, 16)).astype(
        np.float32
    )


@pytest.mark.parametrize("k", [1, 50, 300])
def test_score_is_the_distance_to_the_kth_neighbour(vectors, k):
    bank, queries = vectors
    scores = KNN(k).fit(Observation(bank)).score(Observation(queries))
    np.testing.assert_allclose(scores, reference(bank, queries, k), atol=2e-7)


def test_a_known_image_has_distance_zero_to_itself(vectors):
    bank, _ = vectors
    assert KNN(1).fit(Observation(bank)).score(Observation(bank)).max() < 1e-7


def test_length_of_a_vector_does_not_matter(vectors):
    bank, queries = vectors
    fitted = KNN(5).fit(Observation(bank))
    twice = KNN(5).fit(Observation(bank * 3)).score(Observation(queries * 0.2))
    np.testing.assert_allclose(twice, fitted.score(Observation(queries)), atol=1e-6)


def test_fewer_images_than_k_is_an_error(vectors):
    with pytest.raises(InvalidInput, match=r"at least k=50 known images, got 49"):
        KNN().fit(Observation(vectors[0][:49]))


def test_the_kept_part_does_not_depend_on_the_order(vectors):
    bank, queries = vectors
    kept = KNN(5, max_bank=50).fit(Observation(bank))
    shuffled = KNN(5, max_bank=50).fit(Observation(bank[::-1].copy()))
    np.testing.assert_array_equal(kept.bank, shuffled.bank)
    assert kept.bank.shape == (50, 16)
    assert (
        kept.score(Observation(queries))
        >= KNN(5).fit(Observation(bank)).score(Observation(queries)) - 1e-7
    ).all()


@pytest.mark.parametrize("settings", [{"k": 0}, {"k": 9, "max_bank": 8}, {"max_bank": -1}])
def test_settings_out_of_range(settings):
    with pytest.raises(InvalidInput, match="expected k >= 1"):
        KNN(**settings)


def test_scoring_in_blocks_gives_the_same(vectors, monkeypatch):
    bank, queries = vectors
    fitted = KNN(7).fit(Observation(bank))
    whole = fitted.score(Observation(queries))
    monkeypatch.setattr("embedkit.detect.vectors._BLOCK_BYTES", 3 * 8 * len(bank))
    np.testing.assert_allclose(fitted.score(Observation(queries)), whole, atol=1e-7)
