"""The kNN head against scikit-learn, and the meter against hand counts."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from embedkit.errors import BudgetExhausted, InvalidInput
from embedkit.evaluate.measurement.victim.heads import CosineHead
from embedkit.evaluate.measurement.victim.vote import KnnHead
from embedkit.evaluate.oracle import Oracle, QueryMeter
from embedkit.evaluate.threat import Threat
from embedkit.testing import ConstantEmbedder
from embedkit.types import Usage


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


class PixelEmbedder:
    """The first two pixels of an image as a unit vector."""

    dim = 2
    digest = "sha256:pixels"

    def embed(self, images):
        return unit(images.reshape(len(images), -1)[:, :2] + 1e-3)


def blank(n):
    return np.zeros((n, 1, 2, 1), np.uint8)


def head_and_queries(rng, *, k=20):
    centres = rng.standard_normal((5, 6))
    labels = rng.integers(0, 5, 300)
    bank = unit(centres[labels] + rng.standard_normal((300, 6)))
    own = rng.integers(0, 5, 200)
    queries = unit(centres[own] + 1.5 * rng.standard_normal((200, 6)))
    return KnnHead(bank, labels, own, k=k), queries


@pytest.mark.parametrize("k", [1, 5, 20, 1000])
def test_knn_decides_as_scikit_learn(rng, k):
    head, queries = head_and_queries(rng, k=k)
    reference = KNeighborsClassifier(
        min(k, 300),
        weights=lambda d: np.exp((1 - d) / 0.07),
        metric="cosine",
        algorithm="brute",
    ).fit(head.bank, head.bank_labels)
    assert np.array_equal(head.decide(queries), reference.predict(queries))


def test_knn_margin_is_positive_exactly_while_the_decision_stands(
    rng,
):
    head, queries = head_and_queries(rng)
    margins = head.margins(queries, np.arange(200))
    kept = head.decide(queries) == head.labels
    assert 0 < kept.sum() < 200
    assert np.array_equal(margins > 0, kept)
    assert np.isfinite(margins).all()


def test_knn_margin_is_the_log_ratio_of_the_votes(rng):
    head, queries = head_and_queries(rng, k=300)
    votes = np.exp(queries.astype(np.float64) @ head.bank.T / 0.07)
    per_class = np.stack([votes[:, head.bank_labels == c].sum(axis=1) for c in range(5)], 1)
    rows = np.arange(200)
    own = per_class[rows, head.labels]
    per_class[rows, head.labels] = 0
    expected = np.log(own) - np.log(per_class.max(axis=1))
    np.testing.assert_allclose(head.margins(queries, rows), expected, rtol=1e-4, atol=1e-4)


def test_a_class_without_a_vote_counts_with_its_nearest_image():
    """Three neighbours of class 0; class 1 is farther and still gives the margin a slope."""
    bank = unit(np.array([[1, 0], [1, 0.01], [1, 0.02], [0, 1]]))
    head = KnnHead(bank, np.array([0, 0, 0, 1]), np.array([0, 0]), k=3)
    near, far = head.margins(unit(np.array([[1, 0.3], [1, 0.1]])), np.array([0, 1]))
    assert 0 < near < far < np.inf


def test_ties_are_decided_once_for_decision_and_margin():
    bank = unit(np.array([[1, 0], [1, 0]]))
    head = KnnHead(bank, np.array([0, 1]), np.array([0, 1]), k=2)
    same = unit(np.array([[1, 0], [1, 0]]))
    assert head.decide(same).tolist() == [0, 0]
    assert (head.margins(same, np.array([0, 1])) > 0).tolist() == [True, False]


def test_a_label_that_the_bank_lacks_is_never_right():
    bank = unit(np.array([[1, 0], [0, 1]]))
    head = KnnHead(bank, np.array([0, 1]), np.array([7]))
    assert head.margins(bank[:1], np.array([0]))[0] <= 0


def test_one_class_cannot_be_fooled():
    head = KnnHead(unit(np.eye(3)), np.zeros(3, np.int64), np.zeros(1, np.int64))
    assert head.margins(unit(-np.ones((1, 3))), np.array([0]))[0] > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bank": np.zeros((0, 2), np.float32)}, "expected one label per bank embedding"),
        ({"k": 0}, "expected k >= 1"),
        ({"temperature": 0.0}, "temperature > 0"),
    ],
)
def test_impossible_heads_are_refused(change, message):
    good = KnnHead(unit(np.eye(2)), np.array([0, 1]), np.array([0]))
    with pytest.raises(InvalidInput, match=message):
        replace(good, **change)


def test_cosine_head_compares_with_the_own_anchor():
    head = CosineHead(unit(np.eye(2)), threshold=0.5)
    turned = unit(np.array([[1.0, 1.0], [1.0, 3.0]]))
    margins = head.margins(turned[[0, 1, 1]], np.array([0, 0, 1]))
    expected = np.array([0.5**0.5, 0.1**0.5, 0.9**0.5]) - 0.5
    np.testing.assert_allclose(margins, expected, atol=1e-6)


def test_meter_counts_each_image_sent():
    meter = QueryMeter(PixelEmbedder(), 3)
    meter.embed(blank(2), np.array([0, 2]))
    meter.embed(blank(3), np.array([2, 2, 1]))
    assert meter.per_image.tolist() == [1, 1, 3]
    assert meter.usage == Usage(images=5, calls=2, bytes_sent=10)


def test_meter_takes_calls_from_a_victim_that_counts_them():
    victim = ConstantEmbedder()
    images = np.zeros((2, 8, 8, 1), np.uint8)
    victim.embed(images)
    meter = QueryMeter(victim, 2)
    meter.embed(images, np.array([0, 1]))
    assert meter.usage == Usage(images=2, calls=1, bytes_sent=128)


def test_the_limit_is_hard_and_nothing_is_sent_over_it():
    victim = ConstantEmbedder()
    meter = QueryMeter(victim, 2, limit=2)
    images = np.zeros((2, 8, 8, 1), np.uint8)
    meter.embed(images, np.array([0, 0]))
    with pytest.raises(BudgetExhausted, match="expected at most 2 queries per image"):
        meter.embed(images, np.array([1, 0]))
    assert victim.usage.images == 2
    assert meter.per_image.tolist() == [2, 0]


def test_oracle_remembers_the_best_image_shown():
    head = CosineHead(unit(np.array([[1, 0], [1, 0]])), threshold=0.0)
    oracle = Oracle(PixelEmbedder(), head, blank(2))
    shown = np.array([[9, 3], [9, 6], [9, 1]], np.uint8).reshape(3, 1, 2, 1)
    oracle.margins(shown, np.array([0, 0, 1]))
    oracle.margins(shown[:1], np.array([0]))
    assert oracle.best.reshape(2, 2).tolist() == [[9, 6], [9, 1]]
    np.testing.assert_allclose(oracle.best_margins, [9 / 117**0.5, 9 / 82**0.5], atol=1e-3)


def test_an_oracle_of_decisions_gives_no_scores():
    head = CosineHead(unit(np.array([[1, 0]])), threshold=0.5)
    oracle = Oracle(PixelEmbedder(), head, blank(1), answers="decisions")
    with pytest.raises(InvalidInput, match="got one for scores"):
        oracle.margins(blank(1), np.array([0]))
    assert oracle.meter.usage.images == 0
    shown = np.array([[0, 9], [9, 0], [1, 9]], np.uint8).reshape(3, 1, 2, 1)
    assert oracle.fooled(shown, np.array([0, 0, 0])).tolist() == [True, False, True]
    assert oracle.best.ravel().tolist() == [1, 9]


@pytest.mark.parametrize("answers", ["scores", "decisions"])
def test_many_questions_in_one_call_are_noted_as_one_by_one(rng, answers):
    """Of one image several rows in a call: best, nearest and first as if asked in turn."""
    originals = rng.integers(0, 256, (5, 1, 2, 1), dtype=np.uint8)
    head = CosineHead(PixelEmbedder().embed(originals), threshold=0.9)
    threat = Threat("linf", 90)
    together, apart = (
        Oracle(PixelEmbedder(), head, originals, threat=threat, answers=answers)
        for _ in range(2)
    )
    for _ in range(6):
        indices = rng.integers(0, 5, 9)
        images = rng.integers(0, 256, (9, 1, 2, 1), dtype=np.uint8)
        ask = Oracle.margins if answers == "scores" else Oracle.fooled
        ask(together, images, indices)
        for row in range(9):
            ask(apart, images[[row]], indices[[row]])
    for name in ("best", "best_margins", "nearest", "first_success"):
        assert np.array_equal(getattr(together, name), getattr(apart, name)), name
    assert together.first_success.any()
