import numpy as np
import pytest

from embedkit.detect.detector import Observation
from embedkit.detect.detectors.ssd import SSD
from embedkit.errors import InvalidInput


@pytest.fixture
def known():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 80)
    vectors = (rng.normal(size=(3, 6)) * 3)[labels] + rng.normal(size=(240, 6))
    return Observation(vectors.astype(np.float32), labels=labels)


def reference(train, test, groups):
    """The authors' evaluation in their order: length, standardise, min over clusters."""
    train, test = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (train, test))
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    train, test = (train - mean) / deviation, (test - mean) / deviation
    distances = []
    for g in np.unique(groups):
        rows = train[groups == g]
        away = test - rows.mean(axis=0)
        inverse = np.linalg.pinv(np.cov(rows.T, bias=True))
        distances.append(np.sum(away * (inverse @ away.T).T, axis=-1))
    return np.min(distances, axis=0)


@pytest.mark.parametrize("supervised", [False, True])
def test_score_follows_the_authors(known, supervised):
    queries = np.random.default_rng(1).normal(size=(20, 6)).astype(np.float32)
    groups = known.labels if supervised else np.zeros(240)
    expected = reference(known.embeddings.astype(float), queries.astype(float), groups)
    scores = SSD(supervised=supervised).fit(known).score(Observation(queries))
    np.testing.assert_allclose(scores, expected, rtol=1e-4)


def test_a_dimension_that_never_varies_does_not_count(known):
    dead = np.concatenate([known.embeddings, np.zeros((240, 1), np.float32)], axis=1)
    scores = SSD().fit(Observation(dead)).score(Observation(dead))
    np.testing.assert_allclose(scores, SSD().fit(known).score(known), rtol=1e-6)
    assert SSD(clusters=3).fit(known).means.shape == (3, 6)


def test_limits(known):
    with pytest.raises(InvalidInput, match="at most 4 dimensions and 1 cluster, got 240 of 6"):
        SSD(max_dim=4).fit(known)
