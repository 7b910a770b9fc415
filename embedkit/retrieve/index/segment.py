"""An immutable approximate index, searched as hard as a request wants and re-ranked exactly."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import ceil

import numpy as np
import numpy.typing as npt

from embedkit.retrieve.index.blocks import Slots
from embedkit.retrieve.index.engines.curve import Curve
from embedkit.retrieve.index.engines.rows import Rows, RowsDamagedError
from embedkit.retrieve.index.engines.source import ReplacedError, Source
from embedkit.retrieve.index.engines.spec import Engine, Spec
from embedkit.retrieve.index.neighbours import (
    MARGIN,
    Mask,
    Neighbours,
    cut_ties,
    joined,
    settled,
)
from embedkit.retrieve.index.scoring import (
    nearest,
    prepared,
    rescored,
    scored,
)
from embedkit.retrieve.index.selection import Selection
from embedkit.types import Embeddings, SearchParams

__all__ = ["RECALL", "Segment"]

RECALL = 0.97
"""Recall aimed at where a request says nothing."""

# So few are compared one by one in less time than an index takes to skip the others.
_FEW = 4096
# A graph walks through what a filter leaves out; below this share, comparing all is cheaper.
_GRAPH_SHARE = 0.1
_ROWS_AT_ONCE = 8192
_SMALL_MARGIN = 2


@dataclass(frozen=True, eq=False)
class Segment:
    """Vectors up to some slot in a FAISS index, as they were when it was built.

    Attributes:
        spec: What was built.
        engine: The FAISS index.
        slots: Ascending slot of each position.
        last_slot: Slot up to which vectors are in here, or were gone.
        rows: The whole vectors, where the index has only codes of them.
        curve: How hard to try.
        largest_error: Largest squared distance between a vector and what its code stands for.
    """

    spec: Spec
    engine: Engine
    slots: Slots
    last_slot: int
    rows: Rows | None = None
    curve: Curve = field(default_factory=Curve)
    largest_error: float = 0.0

    def places(self, slots: Slots) -> Slots:
        """Positions of those of some ascending slots that are in here."""
        slots = slots[: np.searchsorted(slots, self.last_slot, "right")]
        places = np.searchsorted(self.slots, slots)
        places = places[places < len(self.slots)]
        hits: Slots = places[self.slots[places] == slots[: len(places)]]
        return hits

    def search(
        self,
        queries: Embeddings,
        k: int,
        chosen: Selection,
        params: SearchParams,
        source: Source,
    ) -> Neighbours:
        """Return the ``min(k, chosen.count)`` nearest of the chosen vectors.

        Args:
            queries: (n, d) prepared float32.
            k: At least 1.
            chosen: Positions that may be found.
            params: How hard to try.
            source: Has the vectors that are not held in memory.

        Raises:
            ReplacedError: If a vector that is not in memory is no longer there.
        """
        k = min(k, chosen.count)
        if not k:
            return Neighbours.none(len(queries))
        effort = None if params.exact else self._effort(k, chosen, params)
        try:
            return self._search(queries, k, chosen, effort, source)
        except RowsDamagedError:  # from now on the source is asked
            return self._search(queries, k, chosen, effort, source)

    def _search(
        self, queries: Embeddings, k: int, chosen: Selection, effort: int | None, source: Source
    ) -> Neighbours:
        if effort is None:
            return self._exact(queries, k, chosen, source)
        near, full = self._approximate(queries, k, chosen, effort, source)
        if full is None:
            return near
        slots, scores, is_exact = near.slots.copy(), near.scores.copy(), near.exact
        left = np.flatnonzero(~full)
        # Where fewer than k are found, that query tries harder, whatever the others found.
        while len(left):
            effort = effort * 2 if effort is not None and effort < self.engine.most else None
            if effort is None:
                near, full = self._exact(queries[left], k, chosen, source), None
            else:
                near, full = self._approximate(queries[left], k, chosen, effort, source)
            full = np.ones(len(left), np.bool_) if full is None else full
            slots[left[full]], scores[left[full]] = near.slots[full], near.scores[full]
            is_exact &= near.exact
            left = left[~full]
        return Neighbours(slots, scores, is_exact)

    def _effort(self, k: int, chosen: Selection, params: SearchParams) -> int | None:
        """How hard to try, or None to compare every chosen vector."""
        asked = params.ef if self.spec.kind == "hnsw" else params.nprobe
        if asked is None:
            target = RECALL if params.recall_target is None else params.recall_target
            asked = None if target == 1 else self.curve.effort(k, target)
        if asked is None or chosen.count <= _FEW:
            return None
        if self.spec.kind == "hnsw":
            effort = asked if chosen.bits is None else int(asked / chosen.share)
            is_worth_it = chosen.share >= _GRAPH_SHARE and effort <= self.engine.most
            return effort if is_worth_it else None
        # As many of the chosen are looked at as without a filter.
        effort = min(self.engine.most, ceil(asked / chosen.share))
        scanned = effort / self.engine.most * len(self.slots)
        return None if self.spec.holds_vectors and chosen.count <= scanned / 8 else effort

    def _approximate(
        self, queries: Embeddings, k: int, chosen: Selection, effort: int, source: Source
    ) -> tuple[Neighbours, Mask | None]:
        """The best of what FAISS finds, and for which queries that is k; None for all."""
        effort = min(effort, self.engine.most)
        is_exact = (
            self.spec.holds_vectors and self.spec.kind != "hnsw" and effort >= self.engine.most
        )
        # Codes need the width that was measured; vectors what FAISS's rounding may exchange,
        # which hardly matters where more may be missed.
        wide = k + (MARGIN if is_exact else _SMALL_MARGIN)
        wide = min(max(wide, ceil(k * self.curve.width)), chosen.count)
        found = self.engine.search(queries, wide, effort, chosen.selector())
        positions = found.position
        if (positions[:, -1] >= 0).all():
            scores = self._scores(queries, positions, found.vectors, source)
            near = Neighbours.ranked(self.slots[positions], scores, k, exact=is_exact)
            return near, ~cut_ties(scores, k) if is_exact else None
        missing = positions < 0
        if missing.all():
            return Neighbours.unknown(len(queries), k), ~missing[:, 0]
        # What stands in for a missing one must be there; -inf keeps it out.
        positions = np.where(missing, positions.max(), positions)
        scores = self._scores(queries, positions, found.vectors, source)
        scores[missing] = -np.inf
        near = Neighbours.ranked(self.slots[positions], scores, k, exact=is_exact)
        return near, ~missing[:, k - 1]

    def _scores(
        self,
        queries: Embeddings,
        positions: npt.NDArray[np.int64],
        vectors: Embeddings | None,
        source: Source,
    ) -> npt.NDArray[np.float64]:
        metric = self.spec.metric
        if vectors is not None:
            return scored(queries, vectors, metric)
        if self.spec.holds_vectors:
            return rescored(queries, positions, self._held, metric)
        if self._readable is not None:
            return rescored(queries, positions, self._readable.read, metric)
        unique, inverse = np.unique(positions, return_inverse=True)
        vectors = self._vectors(unique, source)
        inverse = inverse.reshape(positions.shape)
        return rescored(queries, inverse, vectors.__getitem__, metric)

    @property
    def _readable(self) -> Rows | None:
        """The file of whole vectors, if there is a good one."""
        return None if self.rows is None or self.rows.is_damaged else self.rows

    def _held(self, positions: npt.NDArray[np.int64]) -> Embeddings:
        """Prepared vectors of positions of any shape, from the index itself."""
        vectors = self.engine.vectors(positions.ravel())
        return vectors.reshape(*positions.shape, vectors.shape[1])

    def _vectors(self, positions: Slots, source: Source) -> Embeddings:
        """Prepared vectors of ascending positions."""
        if self.spec.holds_vectors:
            return self.engine.vectors(positions)
        if self._readable is not None:
            return self._readable.read(positions)
        slots, vectors = source.fetch(self.slots[positions])
        if len(slots) < len(positions):
            raise ReplacedError
        return prepared(vectors, self.spec.metric)

    def _exact(
        self, queries: Embeddings, k: int, chosen: Selection, source: Source
    ) -> Neighbours:
        """Compare every chosen vector."""
        best, seen = Neighbours.none(len(queries)), 0
        for positions, vectors in self._chosen(chosen, source):
            seen += len(positions)

            def search(
                part: Embeddings,
                margin: int,
                at: Slots = positions,
                among: Embeddings = vectors,
            ) -> tuple[Neighbours, Mask]:
                wide = min(k + margin, len(at))
                _, rows = nearest(part, among, wide, self.spec.metric)
                scores = rescored(part, rows, among.__getitem__, self.spec.metric)
                return Neighbours.ranked(self.slots[at[rows]], scores, k), cut_ties(scores, k)

            best = joined([best, settled(search, queries)], k)
        if seen < chosen.count:
            raise ReplacedError
        return best

    def _chosen(self, chosen: Selection, source: Source) -> Iterator[tuple[Slots, Embeddings]]:
        """Positions and prepared vectors of the chosen, some at a time."""
        if self.spec.holds_vectors or chosen.count <= _FEW:
            positions = chosen.positions()
            for start in range(0, len(positions), _ROWS_AT_ONCE):
                part = positions[start : start + _ROWS_AT_ONCE]
                yield part, self._vectors(part, source)
            return
        if self._readable is not None:
            for start, vectors in self._readable.stream():
                places = np.arange(start, start + len(vectors))
                keep = chosen.holds(places)
                if keep.any():
                    yield places[keep], vectors[keep]
            return
        for slots, vectors in source.stream():
            places = np.minimum(np.searchsorted(self.slots, slots), len(self.slots) - 1)
            keep = (self.slots[places] == slots) & chosen.holds(places)
            if keep.any():
                yield places[keep], prepared(vectors[keep], self.spec.metric)

    def with_curve(self, curve: Curve) -> "Segment":
        """The same index that knows how hard to try."""
        return replace(self, curve=curve)
