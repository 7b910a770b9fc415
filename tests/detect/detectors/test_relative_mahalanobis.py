import numpy as np
import pytest
from sklearn.covariance import EmpiricalCovariance

from embedkit.detect.detector import Observation
from embedkit.detect.detectors.relative_mahalanobis import RelativeMahalanobis


@pytest.fixture
def known():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 80)
    vectors = (rng.normal(size=(3, 6)) * 3)[labels] + rng.normal(size=(240, 6))
    return Observation(vectors.astype(np.float32), labels=labels)


def test_score_follows_the_paper(known):
    """Ren et al. 2021, equations 1 to 4, with explicit inverses."""
    z = known.embeddings.astype(np.float64)
    means = [z[known.labels == c].mean(axis=0) for c in range(3)]
    within = np.concatenate([z[known.labels == c] - means[c] for c in range(3)])
    precision = np.linalg.inv(within.T @ within / len(z))
    background = EmpiricalCovariance().fit(z)
    queries = np.random.default_rng(1).normal(size=(20, 6)).astype(np.float32)
    expected = np.array([min((q - m) @ precision @ (q - m) for m in means) for q in queries])
    expected -= background.mahalanobis(queries.astype(np.float64))
    scores = RelativeMahalanobis().fit(known).score(Observation(queries))
    np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-8)


def test_one_class_says_nothing(known):
    """Both distances are then the same one."""
    one = Observation(known.embeddings, labels=np.zeros(240, np.int64))
    np.testing.assert_allclose(RelativeMahalanobis().fit(one).score(one), 0, atol=1e-9)


def test_without_labels_clusters_stand_for_the_classes(known):
    unlabelled = Observation(known.embeddings)
    scores = RelativeMahalanobis(clusters=3).fit(unlabelled).score(unlabelled)
    np.testing.assert_allclose(scores, RelativeMahalanobis().fit(known).score(known), rtol=1e-6)


def test_features_are_used_when_asked_for(known):
    both = Observation(
        np.zeros((240, 2), np.float32), features=known.embeddings, labels=known.labels
    )
    fitted = RelativeMahalanobis(source="features").fit(both)
    restored = RelativeMahalanobis().restore(fitted.state())
    np.testing.assert_array_equal(
        restored.score(both), RelativeMahalanobis().fit(known).score(known)
    )
