import numpy as np
import pytest
from sklearn.covariance import EmpiricalCovariance

from embedkit.detect.detector import Observation
from embedkit.detect.detectors.mahalanobis import Mahalanobis
from embedkit.errors import InvalidInput


@pytest.fixture
def known():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 80)
    means = rng.normal(size=(3, 6)) * 3
    mixing = rng.normal(size=(6, 6))
    return Observation(
        (means[labels] + rng.normal(size=(240, 6)) @ mixing).astype(np.float32), labels=labels
    )


def reference(known, queries, labels):
    """Lee et al. 2018, equations 1 and 2, term by term with an explicit inverse."""
    z = known.embeddings.astype(np.float64)
    covariance = np.zeros((z.shape[1], z.shape[1]))
    means = {}
    for c in np.unique(labels):
        means[c] = z[labels == c].mean(axis=0)
        for row in z[labels == c]:
            covariance += np.outer(row - means[c], row - means[c]) / len(z)
    precision = np.linalg.inv(covariance)
    return np.array(
        [min((q - m) @ precision @ (q - m) for m in means.values()) for q in queries]
    )


def test_score_follows_the_paper(known):
    queries = np.random.default_rng(1).normal(size=(20, 6)).astype(np.float32)
    scores = Mahalanobis().fit(known).score(Observation(queries))
    np.testing.assert_allclose(scores, reference(known, queries, known.labels), rtol=1e-9)


def test_without_labels_it_is_the_textbook_distance(known):
    unlabelled = Observation(known.embeddings)
    scores = Mahalanobis().fit(unlabelled).score(unlabelled)
    expected = EmpiricalCovariance().fit(known.embeddings.astype(np.float64))
    np.testing.assert_allclose(
        scores, expected.mahalanobis(known.embeddings.astype(np.float64)), rtol=1e-7
    )
    # E[(z - mu)' S^-1 (z - mu)] over the images of the fit is exactly the dimension.
    assert scores.mean() == pytest.approx(6, rel=1e-9)


def test_an_invertible_map_of_the_space_changes_nothing(known):
    rng = np.random.default_rng(2)
    mapping = rng.normal(size=(6, 6))
    moved = Observation((known.embeddings @ mapping).astype(np.float32), labels=known.labels)
    before = Mahalanobis().fit(known).score(known)
    np.testing.assert_allclose(Mahalanobis().fit(moved).score(moved), before, rtol=1e-4)


def test_fewer_images_than_dimensions_are_shrunk():
    rng = np.random.default_rng(0)
    few = Observation(rng.normal(size=(20, 40)).astype(np.float32))
    far = Observation(rng.normal(size=(20, 40), scale=5).astype(np.float32))
    fitted = Mahalanobis().fit(few)
    assert np.isfinite(fitted.score(far)).all()
    assert fitted.score(far).min() > fitted.score(few).max()
    with pytest.raises(InvalidInput, match="numerically singular; use shrinkage='auto'"):
        Mahalanobis(shrinkage="none").fit(few)


def test_a_dimension_that_never_varies_is_no_obstacle(known):
    dead = np.concatenate([known.embeddings, np.zeros((240, 1), np.float32)], axis=1)
    scores = Mahalanobis().fit(Observation(dead, labels=known.labels)).score(Observation(dead))
    assert np.isfinite(scores).all()


def test_a_collapsed_encoder_scores_zero():
    same = Observation(np.full((30, 4), 0.5, np.float32))
    np.testing.assert_allclose(Mahalanobis().fit(same).score(same), 0, atol=1e-12)


def test_features_are_used_when_asked_for(known):
    both = Observation(np.zeros((240, 2), np.float32), features=known.embeddings)
    fitted = Mahalanobis(source="features").fit(both)
    assert fitted.needs == {"features"}
    np.testing.assert_allclose(
        fitted.score(both),
        Mahalanobis().fit(Observation(known.embeddings)).score(Observation(known.embeddings)),
    )
    restored = Mahalanobis().restore(fitted.state())
    np.testing.assert_array_equal(restored.score(both), fitted.score(both))
    with pytest.raises(InvalidInput, match="with features, got none"):
        fitted.score(known)


def test_limits_on_size(known):
    with pytest.raises(InvalidInput, match="at most 4 dimensions, got 240 of 6"):
        Mahalanobis(max_dim=4).fit(known)
    with pytest.raises(InvalidInput, match="at least 2 images"):
        Mahalanobis().fit(Observation(known.embeddings[:1]))
