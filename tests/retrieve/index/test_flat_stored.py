"""The flat index over stored halves and bytes: exact for what is stored, in its memory."""

import numpy as np
import pytest

from embedkit.retrieve.index import blocks, scoring
from embedkit.retrieve.index.flat import FlatIndex
from embedkit.retrieve.index.storage import Storage
from embedkit.types import Metric

DIM = 24
NONE = np.empty(0, np.int64)


def brute_force(
    base: np.ndarray, queries: np.ndarray, k: int, metric: Metric
) -> tuple[np.ndarray, np.ndarray]:
    """Places and scores by the definitions, in float64."""
    base, queries = base.astype(np.float64), queries.astype(np.float64)
    if metric == "cosine":
        base = base / np.linalg.norm(base, axis=1, keepdims=True)
        queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    scores = queries @ base.T
    if metric == "l2":
        scores = -((queries[:, None] - base[None]) ** 2).sum(axis=2)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(scores, order, axis=1)


@pytest.mark.parametrize("metric", ["cosine", "inner_product", "l2"])
@pytest.mark.parametrize("name", ["float16", "int8"])
def test_what_is_stored_is_what_is_compared(
    rng: np.random.Generator, name: str, metric: Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lengths differ a lot, rows are removed, blocks and parts are small."""
    storage = Storage(name, DIM)
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 1024 * storage.width)
    monkeypatch.setattr(scoring, "_WIDENED_AT_ONCE", 300 * DIM)
    vectors = rng.standard_normal((2500, DIM)) * 10.0 ** rng.uniform(-1, 1, (2500, 1))
    rows = storage.encoded(vectors.astype(np.float32))
    stored, slots = storage.decoded(rows), np.arange(2500)
    gone = rng.permutation(2500)[:400]
    index = FlatIndex(DIM, metric, name)
    for start in range(0, 2500, 700):
        index = index.changed(slots[start : start + 700], rows[start : start + 700], NONE)
    index = index.changed(NONE, rows[:0], gone)
    alive = np.setdiff1d(slots, gone)
    chosen = alive[rng.random(len(alive)) < 0.3]
    for count in (1, 40):
        queries = rng.standard_normal((count, DIM)).astype(np.float32)
        for near, among in (
            (index.search(queries, 15), alive),
            (index.packed().search(queries, 15), alive),
            (index.after(1200).search(queries, 15), alive[alive > 1200]),
            (index.search(queries, 15, chosen), chosen),
        ):
            places, scores = brute_force(stored[among], queries, 15, metric)
            assert near.slots.tolist() == among[places].tolist()
            np.testing.assert_allclose(near.scores, scores, rtol=1e-5, atol=1e-6)
    itself = index.search(stored[alive[:5]], 1)
    if metric == "cosine":
        assert itself.scores.tolist() == [[1.0]] * 5
    assert index.count == 2100
    places, held = index.held(alive)
    assert len(places) == 2100
    if metric == "l2":
        assert np.array_equal(held, stored[alive])


@pytest.mark.parametrize(("name", "width"), [("float32", 96), ("float16", 48), ("int8", 28)])
def test_memory_is_that_of_what_is_stored(
    rng: np.random.Generator, name: str, width: int
) -> None:
    storage = Storage(name, DIM)
    vectors = rng.standard_normal((3000, DIM)).astype(np.float32)
    index = FlatIndex(DIM, "l2", name).changed(np.arange(3000), storage.encoded(vectors), NONE)
    assert index.memory_bytes == 3000 * (width + 8)
    (block,) = index._blocks
    assert block.rows[:3000].nbytes == 3000 * width
