"""The flat index against brute force in float64, through a long life of changes."""

import numpy as np
import pytest

from embedkit.retrieve.index import blocks, flat, scoring
from embedkit.retrieve.index.device import choose
from embedkit.retrieve.index.flat import FlatIndex
from embedkit.types import Metric

NONE = np.empty(0, np.int64)
METRICS: tuple[Metric, ...] = ("cosine", "inner_product", "l2")


def brute_force(
    held: dict[int, np.ndarray], queries: np.ndarray, k: int, metric: Metric
) -> tuple[list[list[int]], np.ndarray]:
    slots = np.array(sorted(held))
    base = np.array([held[slot] for slot in slots], np.float64)
    wanted = queries.astype(np.float64)
    if metric == "cosine":
        base /= np.linalg.norm(base, axis=1, keepdims=True)
        wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    if metric == "l2":
        scores = -((wanted[:, None] - base[None]) ** 2).sum(axis=2)
    else:
        scores = wanted @ base.T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return slots[order].tolist(), np.take_along_axis(scores, order, axis=1)


@pytest.mark.parametrize("metric", METRICS)
def test_a_long_life_of_changes(
    rng: np.random.Generator, metric: Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of rows over several small blocks, many replaced: still exact."""
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 1024 * 4 * 6)
    index, last = FlatIndex(6, metric), 0
    held: dict[int, np.ndarray] = {}
    for step in range(40):
        count = int(rng.integers(1, 400))
        slots = np.arange(last, last + count)
        vectors = rng.standard_normal((count, 6)).astype(np.float32)
        last += count
        gone = rng.permutation(np.array(sorted(held), np.int64))[: int(rng.integers(0, 300))]
        index = index.changed(slots, vectors, gone)
        for slot in gone.tolist():
            del held[slot]
        held.update(zip(slots.tolist(), vectors, strict=True))
        assert index.count == len(held)
        if step % 8 == 7:
            for count in (1, 30):
                queries = rng.standard_normal((count, 6)).astype(np.float32)
                near = index.search(queries, 12)
                expected, scores = brute_force(held, queries, 12, metric)
                assert near.slots.tolist() == expected
                np.testing.assert_allclose(near.scores, scores, rtol=1e-5, atol=1e-6)
    tight = index.packed()
    queries = rng.standard_normal((5, 6)).astype(np.float32)
    assert np.array_equal(tight.search(queries, 30).slots, index.search(queries, 30).slots)


def test_a_query_gets_the_same_answer_alone_and_in_a_batch(rng: np.random.Generator) -> None:
    """FAISS rounds them differently; what leaves the index does not depend on it."""
    base = rng.standard_normal((3000, 96)).astype(np.float32) + 50
    for metric in METRICS:
        index = FlatIndex(96, metric).changed(np.arange(3000), base, NONE)
        queries = base[:40] + np.float32(1e-3)
        together = index.search(queries, 5)
        for row, query in enumerate(queries):
            alone = index.search(query[None], 5)
            assert np.array_equal(alone.slots[0], together.slots[row])
            assert np.array_equal(alone.scores[0], together.scores[row])


def test_squared_distances_far_from_the_origin_do_not_cancel(rng: np.random.Generator) -> None:
    base = (1e4 + rng.standard_normal((500, 16))).astype(np.float32)
    index = FlatIndex(16, "l2").changed(np.arange(500), base, NONE)
    near = index.search(base[:64], 1)
    assert near.slots[:, 0].tolist() == list(range(64))
    assert near.scores.tolist() == [[0.0]] * 64


def test_large_batches_far_from_the_origin_do_not_cancel(rng: np.random.Generator) -> None:
    """So many values of queries that FAISS by itself would take distances from products."""
    choose("cpu")
    base = (1e4 + rng.standard_normal((300, 600))).astype(np.float32)
    index = FlatIndex(600, "l2").changed(np.arange(300), base, NONE)
    near = index.search(base[:256], 1)
    assert near.slots[:, 0].tolist() == list(range(256))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("count", [1, 3, 4, 40])
def test_products_and_differences_find_the_same(
    rng: np.random.Generator, metric: Metric, count: int
) -> None:
    """On both sides of where FAISS begins to multiply matrices, by number and by size."""
    choose("cpu")
    for dim in (40, 64, 600, 2100):
        base = rng.standard_normal((500, dim)).astype(np.float32)
        index = FlatIndex(dim, metric).changed(np.arange(500), base, NONE)
        queries = rng.standard_normal((count, dim)).astype(np.float32)
        expected, scores = brute_force(dict(enumerate(base)), queries, 7, metric)
        near = index.search(queries, 7)
        assert near.slots.tolist() == expected
        np.testing.assert_allclose(near.scores, scores, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_of_equal_vectors_the_first_written_come_first(
    rng: np.random.Generator, metric: Metric
) -> None:
    """As many as a page or more, so that pages neither repeat nor miss one."""
    choose("cpu")
    same = rng.standard_normal(64).astype(np.float32)
    base = np.concatenate([rng.standard_normal((50, 64)), np.tile(same, (3000, 1))])
    index = FlatIndex(64, metric).changed(np.arange(3050), base.astype(np.float32), NONE)
    index = index.changed(NONE, np.empty((0, 64), np.float32), np.arange(50, 60))
    queries = np.concatenate([np.tile(same, (30, 1)), rng.standard_normal((34, 64))])
    queries = queries.astype(np.float32)
    held = {i: v for i, v in enumerate(base.astype(np.float32)) if not 50 <= i < 60}
    expected, _ = brute_force(held, queries, 20, metric)
    assert index.search(queries, 20).slots.tolist() == expected
    among = np.arange(0, 3050, 3)
    assert index.search(queries[:1], 7, among).slots.tolist() == [
        [slot for slot in brute_force(held, queries[:1], 3050, metric)[0][0] if slot % 3 == 0][
            :7
        ]
    ]


@pytest.mark.parametrize("k", [1, 99, 100, 450, 1000])
def test_any_k(rng: np.random.Generator, k: int) -> None:
    base = rng.standard_normal((500, 4)).astype(np.float32)
    index = FlatIndex(4, "l2").changed(np.arange(500), base, np.arange(0, 500, 50))
    index = index.changed(NONE, base[:0], np.arange(0, 500, 50))
    held = {i: base[i] for i in range(500) if i % 50}
    queries = rng.standard_normal((3, 4)).astype(np.float32)
    assert index.search(queries, k).slots.tolist() == brute_force(held, queries, k, "l2")[0]


def test_more_queries_than_are_searched_at_once(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = rng.standard_normal((50, 4)).astype(np.float32)
    index = FlatIndex(4, "cosine").changed(np.arange(50), base, NONE)
    queries = rng.standard_normal((300, 4)).astype(np.float32)
    whole = index.search(queries, 3)
    monkeypatch.setattr(scoring, "_VALUES_AT_ONCE", 1)
    monkeypatch.setattr(flat, "_QUERIES_AT_ONCE", 37)
    parts = index.search(queries, 3)
    assert np.array_equal(whole.slots, parts.slots)
    assert np.array_equal(whole.scores, parts.scores)


def test_an_index_is_a_value(rng: np.random.Generator) -> None:
    base = rng.standard_normal((20, 4)).astype(np.float32)
    first = FlatIndex(4, "l2").changed(np.arange(10), base[:10], NONE)
    second = first.changed(np.arange(10, 20), base[10:], np.arange(5))
    assert (first.count, second.count) == (10, 15)
    assert set(first.search(base[:1], 99).slots[0].tolist()) == set(range(10))
    assert set(second.search(base[:1], 99).slots[0].tolist()) == set(range(5, 20))


def test_nothing_in_nothing_out() -> None:
    near = FlatIndex(4, "cosine").search(np.ones((3, 4), np.float32), 5)
    assert near.slots.shape == near.scores.shape == (3, 0)
