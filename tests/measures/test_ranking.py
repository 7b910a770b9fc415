"""Against loops written from the definitions, scikit-learn, and pytorch-metric-learning."""

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, ndcg_score

from embedkit.errors import InvalidInput
from embedkit.measures.ranking import average_precision, hit, map_at_r, ndcg, precision


@pytest.fixture
def ranked(rng):
    """Rankings of 40 items by 30 queries; every query has at least one relevant item."""
    relevant = rng.random((30, 40)) < rng.uniform(0.02, 0.6, (30, 1))
    relevant[np.arange(30), rng.integers(0, 40, 30)] = True
    return relevant, relevant.sum(axis=1)


def loop(relevant, total, last):
    """Sum of precision at each relevant place up to ``last``, over R; one query."""
    found, gained = 0, 0.0
    for place, is_relevant in enumerate(relevant[:last], 1):
        if is_relevant:
            found += 1
            gained += found / place
    return gained / total


def test_average_precision_is_scikit_learns(ranked):
    relevant, total = ranked
    scores = -np.arange(relevant.shape[1])
    peer = [average_precision_score(row, scores) for row in relevant]
    np.testing.assert_allclose(average_precision(relevant, total), peer, rtol=1e-12)
    ours = [loop(row, n, len(row)) for row, n in zip(relevant, total, strict=True)]
    np.testing.assert_allclose(average_precision(relevant, total), ours, rtol=1e-12)


@pytest.mark.parametrize("k", [1, 5, 40])
def test_ndcg_is_scikit_learns(ranked, k):
    relevant, total = ranked
    scores = np.broadcast_to(-np.arange(relevant.shape[1]), relevant.shape)
    peer = [ndcg_score(r[None], s[None], k=k) for r, s in zip(relevant, scores, strict=True)]
    np.testing.assert_allclose(ndcg(relevant, total, k), peer, rtol=1e-12)


def test_map_at_r_stops_at_r(ranked):
    relevant, total = ranked
    ours = [loop(row, n, n) for row, n in zip(relevant, total, strict=True)]
    np.testing.assert_allclose(map_at_r(relevant, total), ours, rtol=1e-12)
    assert (map_at_r(relevant, total) <= average_precision(relevant, total) + 1e-12).all()


def test_by_hand():
    # Relevant at places 1 and 3 of five, three there are.
    relevant, total = np.array([[1, 0, 1, 0, 0]], bool), np.array([3])
    assert precision(relevant, 2)[0] == 0.5
    assert average_precision(relevant, total)[0] == pytest.approx((1 + 2 / 3) / 3)
    assert map_at_r(relevant, total)[0] == pytest.approx((1 + 2 / 3) / 3)
    ideal = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    assert ndcg(relevant, total, 5)[0] == pytest.approx((1 + 1 / math.log2(4)) / ideal)
    assert hit(relevant, 1)[0]
    assert not hit(relevant[:, 1:], 1)[0]


def test_the_order_behind_the_last_relevant_item_does_not_matter(ranked, rng):
    relevant, total = ranked
    best = -np.sort(-relevant.astype(int), axis=1) > 0
    assert (average_precision(best, total) == 1).all()
    assert (map_at_r(best, total) == 1).all()
    np.testing.assert_allclose(ndcg(best, total, 40), 1)


def test_nothing_to_find_is_no_number_and_a_short_ranking_is_refused():
    nothing, none = np.zeros((1, 3), bool), np.array([0])
    assert np.isnan(average_precision(nothing, none)[0])
    assert np.isnan(map_at_r(nothing, none)[0])
    assert np.isnan(ndcg(nothing, none, 3)[0])
    with pytest.raises(InvalidInput, match="R = 4 places, got 3"):
        map_at_r(np.ones((1, 3), bool), np.array([4]))
    for function in (precision, hit):
        with pytest.raises(InvalidInput, match="k from 1 to 3, got 4"):
            function(nothing, 4)


@pytest.mark.peer
def test_pytorch_metric_learning_agrees():
    peer = pytest.importorskip("pytorch_metric_learning.utils.accuracy_calculator")
    import torch

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 200)
    z = rng.normal(size=(200, 6)).astype(np.float32) + np.eye(4, 6)[labels]
    z = (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32)
    names = ("mean_average_precision_at_r", "precision_at_1", "mean_average_precision")
    calculator = peer.AccuracyCalculator(names, k="max_bin_count", device=torch.device("cpu"))
    found = calculator.get_accuracy(torch.tensor(z), torch.tensor(labels))
    cosines = z @ z.T
    np.fill_diagonal(cosines, -np.inf)
    order = np.argsort(-cosines, axis=1)[:, :-1]
    relevant = labels[order] == labels[:, None]
    total = relevant.sum(axis=1)
    ours = map_at_r(relevant, total).mean()
    assert ours == pytest.approx(found["mean_average_precision_at_r"], abs=1e-6)
    assert precision(relevant, 1).mean() == pytest.approx(found["precision_at_1"], abs=1e-6)
