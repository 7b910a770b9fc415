"""Scores that depend on nothing but the two vectors.

FAISS rounds a batch and a single query differently, so what it finds are candidates; the final
order is made from scores computed here in float64.
"""

import threading
from collections.abc import Callable
from functools import cached_property

import faiss
import numpy as np
import numpy.typing as npt

from embedkit.retrieve.index.device import all_compared, chosen
from embedkit.retrieve.index.storage import Storage, Stored
from embedkit.types import Embeddings, Metric

__all__ = [
    "Measured",
    "compared",
    "nearest",
    "nearest_stored",
    "prepared",
    "rescored",
    "scored",
]

# Vectors are widened to float64 in parts that stay in the processor's cache.
_VALUES_AT_ONCE = 1 << 15
_LITTLE = 1 << 13
# What is widened at once stays in a core's cache until it has been compared.
_WIDENED_AT_ONCE = 1 << 18
# Numbers of the rows that are gathered at once.
_ROWS_AT_ONCE = 1 << 20

FloatScores = npt.NDArray[np.float64]
Measured = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]
"""FAISS's scores, higher is better, and positions, (n, k)."""

Gather = Callable[[npt.NDArray[np.int64]], Embeddings]


def prepared(vectors: Embeddings, metric: Metric) -> Embeddings:
    """Vectors as they are compared: unit length under cosine."""
    if metric != "cosine" or not len(vectors):
        return np.ascontiguousarray(vectors, np.float32)
    wide = vectors.astype(np.float64)
    wide /= np.sqrt(np.vecdot(wide, wide))[:, None]
    return wide.astype(np.float32)


def nearest(queries: Embeddings, vectors: Embeddings, k: int, metric: Metric) -> Measured:
    """FAISS's score, higher is better, and the position of the ``k`` nearest rows, (n, k)."""
    kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    gpu = chosen()
    found = gpu.nearest(queries, vectors, k, kind) if gpu else None
    measure, position = found or all_compared(queries, vectors, k, kind)
    if metric == "l2":
        np.negative(measure, out=measure)
    return measure, position


def nearest_stored(
    queries: Embeddings, rows: Stored, k: int, metric: Metric, storage: Storage
) -> Measured:
    """As ``nearest``, among stored rows, at least ``k``; some thousand are widened at a time.

    Scores are those of FAISS, and candidates as near the truth as those of whole vectors.
    """
    step = max(1, _WIDENED_AT_ONCE // storage.dim)
    best = faiss.ResultHeap(len(queries), k, keep_max=True)
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        if metric == "cosine":
            vectors = storage.directions(part)
            faiss.normalize_L2(vectors)
        else:
            vectors = storage.decoded(part)
        measure, position = nearest(queries, vectors, min(k, len(vectors)), metric)
        position += start
        best.add_result(measure, position)
    best.finalize()
    return np.asarray(best.D, np.float32), np.asarray(best.I, np.int64)


def rescored(
    queries: Embeddings, rows: npt.NDArray[np.int64], gather: Gather, metric: Metric
) -> FloatScores:
    """Score each query against rows of its own, in float64.

    Args:
        queries: (n, d) prepared float32.
        rows: (n, m) numbers that ``gather`` understands.
        gather: Returns the prepared vectors (..., d) of an array of such numbers.
        metric: How to compare.
    """
    step = max(1, _ROWS_AT_ONCE // max(1, rows.shape[1] * queries.shape[1]))
    parts = [slice(start, start + step) for start in range(0, len(rows), step)]
    if len(parts) == 1:
        return scored(queries, gather(rows), metric)
    scores: FloatScores = np.empty(rows.shape, np.float64)
    for part in parts:
        scores[part] = scored(queries[part], gather(rows[part]), metric)
    return scores


def scored(queries: Embeddings, vectors: Embeddings, metric: Metric) -> FloatScores:
    """Score each query (n, d) against vectors (n, m, d) of its own, all float32, in float64."""
    wide = queries.astype(np.float64)
    step = _VALUES_AT_ONCE // max(1, vectors[:1].size)
    if vectors.size <= _LITTLE or not step:
        return compared(wide, vectors.astype(np.float64), metric)
    scores: FloatScores = np.empty(vectors.shape[:2], np.float64)
    for start in range(0, len(vectors), step):
        part = vectors[start : start + step]
        # Memory of this size, taken anew each time, costs more than the arithmetic.
        room = _SCRATCH.values[: part.size].reshape(part.shape)
        np.copyto(room, part)
        scores[start : start + step] = compared(wide[start : start + step], room, metric)
    return scores


class _ThreadScratch(threading.local):
    """Memory of one thread for what it is scoring."""

    @cached_property
    def values(self) -> FloatScores:
        return np.empty(_VALUES_AT_ONCE, np.float64)


_SCRATCH = _ThreadScratch()


def compared(queries: FloatScores, vectors: FloatScores, metric: Metric) -> FloatScores:
    """Score queries (n, d) against vectors (n, m, d), which may be overwritten."""
    scores: FloatScores
    if metric == "l2":
        vectors -= queries[:, None, :]
        scores = 0.0 - np.vecdot(vectors, vectors)
        return scores
    scores = np.vecdot(vectors, queries[:, None, :])
    if metric == "cosine":
        # Unit vectors are rounded to float32; dividing again makes a self-match exactly 1.
        squares = np.vecdot(vectors, vectors)
        squares *= np.vecdot(queries, queries)[:, None]
        scores /= np.sqrt(squares, out=squares)
    return scores
