import numpy as np
import pytest

from embedkit.bundle import Head
from embedkit.detect.detector import Observation
from embedkit.detect.detectors.fdbd import FDBD


@pytest.fixture
def head():
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(4, 6)), rng.normal(size=4)
    return Head(weight.astype(np.float32), bias.astype(np.float32), tuple("abcd"))


def observe(head, features):
    return Observation(features, features=features, logits=head.logits(features), head=head)


def test_score_follows_the_paper(head):
    """Liu and Qin 2024, theorem 3.1 and equation 5: geometric distances, class by class."""
    rng = np.random.default_rng(1)
    train, test = (rng.normal(1, 1, size=(n, 6)).astype(np.float32) for n in (100, 20))
    weight, bias = head.weight.astype(float), head.bias.astype(float)
    mean = train.astype(float).mean(axis=0)
    expected = []
    for z in test.astype(float):
        logits = weight @ z + bias
        m = int(logits.argmax())
        distances = []
        for c in set(range(4)) - {m}:
            normal = weight[m] - weight[c]
            distances.append(abs(normal @ z + bias[m] - bias[c]) / np.linalg.norm(normal))
        expected.append(-np.mean(distances) / np.linalg.norm(z - mean))
    scores = FDBD().fit(observe(head, train)).score(observe(head, test))
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_two_classes_of_the_same_weights_have_no_boundary(head):
    weight = head.weight.copy()
    weight[1] = weight[0]
    twins = Head(weight, np.zeros(4, np.float32), head.class_names)
    known = observe(twins, np.random.default_rng(1).normal(size=(50, 6)).astype(np.float32))
    assert np.isfinite(FDBD().fit(known).score(known)).all()
