"""Nearest neighbours with FAISS over an immutable set of vectors, derived from the truth.

An index is a value: a write gives a new one, so that searches never wait and each of them sees
exactly one state. It can be rebuilt from the truth at any time and is never trusted over it.
"""

from dataclasses import dataclass, replace
from typing import TypeVar

import faiss
import numpy as np
import numpy.typing as npt

from embedkit.retrieve.index.blocks import Block, Slots, filled, packed, removed
from embedkit.types import Embeddings, Metric

__all__ = ["FlatIndex", "Neighbours"]

# More candidates than asked for: FAISS rounds a batch and a single query differently, so the
# final order is made from scores computed here in float64.
_MARGIN = 8
# FAISS holds queries x candidates at once, the float64 scores queries x candidates x dim.
_QUERIES_AT_ONCE = 256
_VALUES_AT_ONCE = 1 << 22
# FAISS compares few queries with selected rows in place faster than the rows are copied, and
# many queries with copied rows faster, because only then it multiplies matrices.
_SELECTED_QUERIES = 8
_SELECTED_SHARE = 1 / 8

_Value = TypeVar("_Value", bound=np.generic)


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest vectors of each query, best first.

    Attributes:
        slots: (n, k) int64.
        scores: (n, k) float32, higher is better.
    """

    slots: Slots
    scores: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class _Candidates:
    """Rows that FAISS found near each query; arrays are (n, m)."""

    block: npt.NDArray[np.int64]
    position: npt.NDArray[np.int64]
    score: npt.NDArray[np.float32]
    dead: npt.NDArray[np.bool_]

    def take(self, columns: npt.NDArray[np.int64]) -> "_Candidates":
        def taken(values: npt.NDArray[_Value]) -> npt.NDArray[_Value]:
            return np.take_along_axis(values, columns, axis=1)

        return _Candidates(
            taken(self.block), taken(self.position), taken(self.score), taken(self.dead)
        )


@dataclass(frozen=True, eq=False)
class FlatIndex:
    """Every vector is compared: exact.

    Attributes:
        dim: Dimensions.
        metric: Under cosine, vectors are normalised in here and nowhere else.
    """

    dim: int
    metric: Metric
    _blocks: tuple[Block, ...] = ()

    @property
    def count(self) -> int:
        """Vectors that can be found."""
        return sum(block.alive for block in self._blocks)

    def changed(self, slots: Slots, vectors: Embeddings, gone: Slots) -> "FlatIndex":
        """Return the index after a write; only the newest index may be changed.

        Args:
            slots: (n,) ascending, all above those used before.
            vectors: (n, d) float32 as the caller gave them.
            gone: Slots to remove, in any order.
        """
        kept = removed(self._blocks, gone, self.dim)
        return replace(self, _blocks=filled(kept, [(slots, self._prepared(vectors))], self.dim))

    def packed(self) -> "FlatIndex":
        """Return the same index without the memory of removed vectors."""
        return replace(self, _blocks=packed(self._blocks, self.dim))

    def search(self, queries: Embeddings, k: int, among: Slots | None = None) -> Neighbours:
        """Return the ``min(k, count)`` nearest vectors of each query; ties by slot.

        Args:
            queries: (n, d) float32, finite; not zero under cosine.
            k: At least 1.
            among: Ascending slots, each of them in the index, to search instead of all.
        """
        k = min(k, self.count if among is None else len(among))
        rows = [None if among is None else block.places(among) for block in self._blocks]
        found = [
            self._search(self._prepared(queries[i : i + _QUERIES_AT_ONCE]), k, rows)
            for i in range(0, len(queries) if k else 0, _QUERIES_AT_ONCE)
        ]
        if not found:
            shape = (len(queries), 0)
            return Neighbours(np.empty(shape, np.int64), np.empty(shape, np.float32))
        return Neighbours(
            np.concatenate([f.slots for f in found]), np.concatenate([f.scores for f in found])
        )

    def _search(self, queries: Embeddings, k: int, rows: list[Slots | None]) -> Neighbours:
        found = self._candidates(queries, k, rows)
        wide = min(k + _MARGIN, found.score.shape[1])
        if wide < found.score.shape[1]:
            order = np.argsort(
                np.where(found.dead, np.inf, -found.score), axis=1, kind="stable"
            )
            found = found.take(order[:, :wide])
        slots = self._slots(found)
        scores = np.where(found.dead, -np.inf, self._exact_scores(queries, found))
        order = np.lexsort((slots, -scores), axis=1)[:, :k]
        return Neighbours(
            np.take_along_axis(slots, order, axis=1),
            np.take_along_axis(scores, order, axis=1).astype(np.float32),
        )

    def _candidates(self, queries: Embeddings, k: int, rows: list[Slots | None]) -> _Candidates:
        parts = []
        for number, (block, mine) in enumerate(zip(self._blocks, rows, strict=True)):
            if mine is None:
                wide = min(block.count, k + _MARGIN + len(block.dead))
                score, position = _nearest(
                    queries, block.vectors[: block.count], wide, self.metric
                )
            elif len(mine):
                score, position = _nearest_among(
                    queries, block, mine, min(len(mine), k + _MARGIN), self.metric
                )
            else:
                continue
            if self.metric == "l2":
                np.negative(score, out=score)
            dead = np.isin(position, block.dead) if len(block.dead) else position < 0
            parts.append(_Candidates(np.full_like(position, number), position, score, dead))
        return _Candidates(
            np.concatenate([p.block for p in parts], axis=1),
            np.concatenate([p.position for p in parts], axis=1),
            np.concatenate([p.score for p in parts], axis=1),
            np.concatenate([p.dead for p in parts], axis=1),
        )

    def _slots(self, found: _Candidates) -> Slots:
        slots = np.empty_like(found.position)
        for number, block in enumerate(self._blocks):
            mine = found.block == number
            slots[mine] = block.slots[found.position[mine]]
        return slots

    def _exact_scores(self, queries: Embeddings, found: _Candidates) -> npt.NDArray[np.float64]:
        scores: npt.NDArray[np.float64] = np.empty(found.score.shape, np.float64)
        step = max(1, _VALUES_AT_ONCE // (scores.shape[1] * self.dim))
        for start in range(0, len(queries), step):
            part = slice(start, start + step)
            blocks, positions = found.block[part], found.position[part]
            vectors = np.empty((len(blocks), blocks.shape[1], self.dim), np.float64)
            for number, block in enumerate(self._blocks):
                mine = blocks == number
                vectors[mine] = block.vectors[positions[mine]]
            scores[part] = _compared(queries[part].astype(np.float64), vectors, self.metric)
        return scores

    def _prepared(self, vectors: Embeddings) -> Embeddings:
        """Vectors as they are compared: unit length under cosine."""
        if self.metric != "cosine" or not len(vectors):
            return np.ascontiguousarray(vectors, np.float32)
        wide = vectors.astype(np.float64)
        wide /= np.sqrt(np.einsum("nd,nd->n", wide, wide))[:, None]
        return wide.astype(np.float32)


def _nearest(
    queries: Embeddings, vectors: Embeddings, k: int, metric: Metric
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """FAISS's measure and the position of the ``k`` nearest rows, both (n, k)."""
    kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    measure, position = faiss.knn(queries, vectors, k, kind)
    return measure, position


def _nearest_among(
    queries: Embeddings, block: Block, rows: Slots, k: int, metric: Metric
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """As ``_nearest``, among some rows of a block, at least ``k``."""
    if len(queries) > _SELECTED_QUERIES or len(rows) < _SELECTED_SHARE * block.count:
        measure, position = _nearest(queries, block.vectors[rows], k, metric)
        return measure, rows[position]
    mask = np.zeros(block.count, np.bool_)
    mask[rows] = True
    bits = np.packbits(mask, bitorder="little")
    selector = faiss.IDSelectorBitmap(block.count, faiss.swig_ptr(bits))
    measure = np.empty((len(queries), k), np.float32)
    position = np.empty((len(queries), k), np.int64)
    vectors = block.vectors[: block.count]
    pointers = [faiss.swig_ptr(array) for array in (queries, vectors)]
    results = [faiss.swig_ptr(array) for array in (measure, position)]
    sizes = (queries.shape[1], len(queries), block.count, k)
    if metric == "l2":
        faiss.knn_L2sqr(*pointers, *sizes, *results, None, selector)  # type: ignore[call-arg]
    else:
        faiss.knn_inner_product(*pointers, *sizes, *results, selector)  # type: ignore[call-arg]
    return measure, position


def _compared(
    queries: npt.NDArray[np.float64], vectors: npt.NDArray[np.float64], metric: Metric
) -> npt.NDArray[np.float64]:
    """Score queries (n, d) against vectors (n, m, d), which may be overwritten."""
    scores: npt.NDArray[np.float64]
    if metric == "l2":
        vectors -= queries[:, None, :]
        scores = 0.0 - np.einsum("nmd,nmd->nm", vectors, vectors)
        return scores
    scores = np.einsum("nmd,nd->nm", vectors, queries)
    if metric == "cosine":
        # Unit vectors are rounded to float32; dividing again makes a self-match exactly 1.
        lengths = np.sqrt(np.einsum("nmd,nmd->nm", vectors, vectors))
        scores /= lengths * np.linalg.norm(queries, axis=1)[:, None]
    return scores
