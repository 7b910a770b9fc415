"""Decisions beyond the vote: margins have the sign of the decision, worked out by hand."""

import numpy as np
import pytest
import torch

from embedkit.bundle import Head
from embedkit.detect.detector import Observation, detectors
from embedkit.errors import InvalidInput
from embedkit.evaluate.attack import subset
from embedkit.evaluate.measurement.victim.heads import (
    LinearHead,
    OodHead,
    SearchHead,
)
from embedkit.evaluate.measurement.victim.novelty import novelty_of

DIM = 6


def units(rng, n):
    z = rng.normal(size=(n, DIM)).astype(np.float32)
    return z / np.linalg.norm(z, axis=1, keepdims=True)


@pytest.fixture
def linear(rng):
    weight = rng.normal(size=(4, DIM)).astype(np.float32)
    return Head(weight, rng.normal(size=4).astype(np.float32), tuple("abcd"))


def test_a_linear_margin_is_the_label_against_the_best_other_class(rng, linear):
    head = LinearHead(linear, rng.integers(0, 4, 30))
    z = rng.normal(size=(30, DIM)).astype(np.float32)
    margins = head.margins(z, np.arange(30))
    logits = z @ linear.weight.T + linear.bias
    for row, y in enumerate(head.labels):
        wanted = logits[row, y] - max(logits[row, j] for j in range(4) if j != y)
        assert margins[row] == pytest.approx(wanted, abs=1e-5)
    assert np.array_equal(margins > 0, head.decide(z) == head.labels)


def test_equal_logits_go_to_the_smaller_class():
    even = Head(np.zeros((3, 2), np.float32), np.zeros(3, np.float32), tuple("abc"))
    head = LinearHead(even, np.array([0, 1, 2]))
    margins = head.margins(np.ones((3, 2), np.float32), np.arange(3))
    assert (margins > 0).tolist() == [True, False, False]


def test_a_search_keeps_its_image_while_one_neighbour_is_among_the_first_k(rng):
    gallery, queries = units(rng, 40), units(rng, 60)
    wanted = np.argsort(-(queries @ gallery.T), axis=1)[:, :3]
    moved = units(rng, 60)
    head = SearchHead(gallery, wanted, k=5)
    margins = head.margins(moved, np.arange(60))
    first = np.argsort(-(moved @ gallery.T), axis=1)[:, :5]
    kept = np.array([bool(set(a) & set(b)) for a, b in zip(first, wanted, strict=True)])
    assert 0 < kept.sum() < 60
    assert np.array_equal(margins > 0, kept)
    cosines = moved @ gallery.T
    for row in range(60):
        others = np.delete(cosines[row], wanted[row])
        own = cosines[row][wanted[row]].max()
        assert margins[row] == pytest.approx(own - np.sort(others)[-5], abs=1e-5)


def test_a_gallery_that_is_too_small_is_refused(rng):
    with pytest.raises(InvalidInput, match="expected k from 1 to the gallery's 5 images"):
        SearchHead(units(rng, 5), np.zeros((2, 3), int), k=3)


@pytest.mark.parametrize(
    "name",
    ["knn", "mahalanobis", "relative_mahalanobis", "energy", "msp", "vim", "entropy", "gen"],
)
def test_novelty_with_gradients_is_the_detectors_score(rng, linear, name):
    features = rng.normal(size=(300, DIM)).astype(np.float32)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    labels = rng.integers(0, 4, 300)
    known = Observation(unit, features, linear.logits(features), labels, None, linear)
    detector = detectors.get(name)().fit(known)
    head = OodHead(detector, 0.0, linear, np.array([True] * 20))
    z = rng.normal(size=(20, DIM)).astype(np.float32)
    given = torch.tensor(z, requires_grad=True)
    score = novelty_of(head, torch.device("cpu"))(given)
    truth = head.scores(z)
    np.testing.assert_allclose(score.detach().numpy(), truth, rtol=1e-3, atol=1e-4)
    (gradient,) = torch.autograd.grad(score.sum(), given)
    # Along the gradient the detector's own score rises as the gradient says.
    slope = gradient.double().norm(dim=1).numpy()
    step = 2e-3 * (gradient / gradient.norm(dim=1, keepdim=True)).numpy()
    rise = (head.scores(z + step) - head.scores(z - step)) / 4e-3
    assert np.median(np.abs(rise - slope) / slope) < 0.05


def test_a_detector_without_a_gradient_is_named(rng, linear):
    features = rng.normal(size=(100, DIM)).astype(np.float32)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    detector = detectors.get("kde")().fit(Observation(unit, features))
    with pytest.raises(InvalidInput, match="expected a detector with a gradient"):
        novelty_of(OodHead(detector, 0.0, linear, np.array([True])), torch.device("cpu"))


def test_known_and_novel_images_have_margins_on_their_own_side(rng):
    z = units(rng, 100)
    detector = detectors.get("knn")().fit(Observation(z))
    scores = OodHead(detector, 0.0, None, np.ones(4, bool)).scores(z[:4])
    threshold = float(np.sort(scores)[1])
    head = OodHead(detector, threshold, None, np.array([True, True, False, False]))
    decided_novel = scores > threshold
    margins = head.margins(z[:4], np.arange(4))
    assert np.array_equal(margins > 0, np.where(head.known, ~decided_novel, decided_novel))
    assert subset(head, np.array([3, 1])).known.tolist() == [False, True]
