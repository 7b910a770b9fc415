"""Nearest neighbours with FAISS over an immutable set of vectors, derived from the truth.

An index is a value: a write gives a new one, so that searches never wait and each of them sees
exactly one state. It can be rebuilt from the truth at any time and is never trusted over it.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import faiss
import numpy as np
import numpy.typing as npt

from embedkit.retrieve.index.blocks import Block, Slots, filled, packed, removed
from embedkit.retrieve.index.device import all_compared
from embedkit.retrieve.index.neighbours import (
    Mask,
    Neighbours,
    cut_ties,
    settled,
    stacked,
)
from embedkit.retrieve.index.scoring import (
    Measured,
    nearest,
    nearest_stored,
    prepared,
    rescored,
)
from embedkit.retrieve.index.storage import Storage, Stored
from embedkit.types import Embeddings, Metric

__all__ = ["FlatIndex"]

# FAISS holds the scores of so many queries with all their candidates at once.
_QUERIES_AT_ONCE = 256
# FAISS compares few queries with selected rows in place faster than the rows are copied, and
# many queries with copied rows faster, because only then it multiplies matrices.
_SELECTED_QUERIES = 8
_SELECTED_SHARE = 1 / 8
# A block has fewer rows.
_ROW_BITS = 32

_Value = TypeVar("_Value", bound=np.generic)


@dataclass(frozen=True, eq=False)
class _Candidates:
    """Rows that FAISS found near each query; arrays are (n, m)."""

    block: npt.NDArray[np.int64]
    position: npt.NDArray[np.int64]
    score: npt.NDArray[np.float32]
    dead: Mask

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
        storage: How vectors are held: ``float32`` as they are compared, others as stored.
    """

    dim: int
    metric: Metric
    storage: str = "float32"
    _blocks: tuple[Block, ...] = ()

    @property
    def count(self) -> int:
        """Vectors that can be found."""
        return sum(block.alive for block in self._blocks)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the rows in use and their slots, removed ones included."""
        return sum(block.memory_bytes for block in self._blocks)

    def slots(self) -> Slots:
        """Every slot that can be found, ascending."""
        living = [np.delete(block.slots[: block.count], block.dead) for block in self._blocks]
        return np.concatenate([np.empty(0, np.int64), *living])

    @cached_property
    def _storage(self) -> Storage:
        return Storage(self.storage, self.dim)

    def changed(self, slots: Slots, rows: Stored, gone: Slots) -> "FlatIndex":
        """Return the index after a write; only the newest index may be changed.

        Args:
            slots: (n,) ascending, all above those used before.
            rows: n vectors as stored; where that is whole, as the caller gave them.
            gone: Slots to remove, in any order.
        """
        kept = removed(self._blocks, gone, self._storage)
        held = prepared(rows, self.metric) if self.storage == "float32" else rows
        return replace(self, _blocks=filled(kept, [(slots, held)], self._storage))

    def packed(self) -> "FlatIndex":
        """Return the same index without the memory of removed vectors."""
        return replace(self, _blocks=packed(self._blocks, self._storage))

    def after(self, slot: int) -> "FlatIndex":
        """Return the vectors written after a slot, in memory of their own."""
        living = (block.living() for block in self._blocks if block.last > slot)
        parts = ((slots[slots > slot], rows[slots > slot]) for slots, rows in living)
        return replace(self, _blocks=filled((), parts, self._storage))

    def held(self, slots: Slots) -> tuple[Slots, Embeddings]:
        """Which of some ascending slots are in here, as places in ``slots``, with vectors."""
        places, vectors = [np.empty(0, np.int64)], [np.empty((0, self.dim), np.float32)]
        for block in self._blocks:
            mine = np.setdiff1d(block.places(slots), block.dead, assume_unique=True)
            places.append(np.searchsorted(slots, block.slots[mine]))
            vectors.append(self._compared(block.rows[mine]))
        return np.concatenate(places), np.concatenate(vectors)

    def search(self, queries: Embeddings, k: int, among: Slots | None = None) -> Neighbours:
        """Return the ``min(k, count)`` nearest vectors of each query; ties by slot.

        Args:
            queries: (n, d) float32, finite; not zero under cosine.
            k: At least 1.
            among: Ascending slots to search instead of all; those not in here are left out.
        """
        rows = [None if among is None else block.places(among) for block in self._blocks]
        k = min(k, self.count if among is None else sum(len(r) for r in rows if r is not None))
        if not k:
            return Neighbours.none(len(queries))

        def search(part: Embeddings, margin: int) -> tuple[Neighbours, Mask]:
            return self._search(part, k, margin, rows)

        ready = prepared(queries, self.metric)
        starts = range(0, len(ready), _QUERIES_AT_ONCE)
        return stacked([settled(search, ready[i : i + _QUERIES_AT_ONCE]) for i in starts])

    def _search(
        self, queries: Embeddings, k: int, margin: int, rows: list[Slots | None]
    ) -> tuple[Neighbours, Mask]:
        """See ``settled``."""
        found = self._candidates(queries, k + margin, rows)
        wide = min(k + margin, found.score.shape[1])
        if wide < found.score.shape[1]:
            order = np.argsort(
                np.where(found.dead, np.inf, -found.score), axis=1, kind="stable"
            )
            found = found.take(order[:, :wide])
        packed_rows = found.block << _ROW_BITS | found.position
        scores = rescored(queries, packed_rows, self._vectors, self.metric)
        scores[found.dead] = -np.inf
        return Neighbours.ranked(self._slots(found), scores, k), cut_ties(scores, k)

    def _candidates(
        self, queries: Embeddings, most: int, rows: list[Slots | None]
    ) -> _Candidates:
        """At least the best ``most`` of all blocks, as far as there are as many."""
        parts = []
        for number, (block, mine) in enumerate(zip(self._blocks, rows, strict=True)):
            if mine is None:
                wide = min(block.count, most + len(block.dead))
                score, position = self._nearest(queries, block.rows[: block.count], wide)
            elif len(mine):
                wide = min(len(mine), most)
                score, position = self._nearest_among(queries, block, mine, wide)
            else:
                continue
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

    def _vectors(self, rows: npt.NDArray[np.int64]) -> Embeddings:
        """Vectors of rows, each the number of its block and its position there."""
        vectors = np.empty((*rows.shape, self.dim), np.float32)
        numbers, positions = rows >> _ROW_BITS, rows & ((1 << _ROW_BITS) - 1)
        for number, block in enumerate(self._blocks):
            mine = numbers == number
            vectors[mine] = self._compared(block.rows[positions[mine]])
        return vectors

    def _compared(self, rows: Stored) -> Embeddings:
        """Held rows as they are compared."""
        if self.storage == "float32":
            return rows
        return prepared(self._storage.decoded(rows), self.metric)

    def _nearest(self, queries: Embeddings, rows: Stored, k: int) -> Measured:
        """As ``nearest`` among held rows, at least ``k``."""
        if self.storage == "float32":
            return nearest(queries, rows, k, self.metric)
        return nearest_stored(queries, rows, k, self.metric, self._storage)

    def _nearest_among(
        self, queries: Embeddings, block: Block, rows: Slots, k: int
    ) -> Measured:
        """As ``_nearest``, among some rows of a block, at least ``k``."""
        is_few = len(queries) <= _SELECTED_QUERIES
        if self.storage == "float32" and is_few and len(rows) >= _SELECTED_SHARE * block.count:
            return _nearest_selected(queries, block, rows, k, self.metric)
        measure, position = self._nearest(queries, block.rows[rows], k)
        return measure, rows[position]


def _nearest_selected(
    queries: Embeddings, block: Block, rows: Slots, k: int, metric: Metric
) -> Measured:
    """As ``nearest``, among some rows of a block of whole vectors, in place."""
    mask = np.zeros(block.count, np.bool_)
    mask[rows] = True
    bits = np.packbits(mask, bitorder="little")
    selector = faiss.IDSelectorBitmap(block.count, faiss.swig_ptr(bits))
    kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    measure, position = all_compared(queries, block.rows[: block.count], k, kind, selector)
    if metric == "l2":
        np.negative(measure, out=measure)
    return measure, position
