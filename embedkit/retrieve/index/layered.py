"""An approximate index of what was there at some time, and a flat one of what came since."""

from dataclasses import dataclass, field, replace

import numpy as np

from embedkit.retrieve.index.blocks import Slots
from embedkit.retrieve.index.engines.source import Source
from embedkit.retrieve.index.flat import FlatIndex
from embedkit.retrieve.index.neighbours import Neighbours, joined, stacked
from embedkit.retrieve.index.scoring import prepared
from embedkit.retrieve.index.segment import Segment
from embedkit.retrieve.index.selection import Selection
from embedkit.retrieve.index.storage import Stored
from embedkit.types import Embeddings, SearchParams

__all__ = ["LayeredIndex"]

_QUERIES_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class LayeredIndex:
    """A value, as every index: a write or a rebuild gives a new one.

    Attributes:
        tail: Vectors that are not in the segment; compared one by one.
        segment: None until one has been built, and for the kind ``flat``.
        alive: Positions of the segment that have not been removed.
        built_at: Number of the last write that the segment reflects; 0 without one.
    """

    tail: FlatIndex
    segment: Segment | None = None
    alive: Selection = field(default_factory=lambda: Selection(0, 0))
    built_at: int = 0

    @property
    def count(self) -> int:
        """Vectors that can be found."""
        return self.tail.count + self.alive.count

    @property
    def removed(self) -> int:
        """Vectors of the segment that cannot be found any more."""
        return self.alive.total - self.alive.count

    @property
    def dim(self) -> int:
        """Dimensions."""
        return self.tail.dim

    @property
    def memory_bytes(self) -> int:
        """Bytes of the rows in use, of codes and links, and of their slots."""
        below = 0
        if self.segment is not None:
            below = self.segment.engine.memory_bytes + self.segment.slots.nbytes
        return self.tail.memory_bytes + below

    @property
    def is_damaged(self) -> bool:
        """Whether a file that belongs to the index cannot be read any more."""
        rows = None if self.segment is None else self.segment.rows
        return rows is not None and rows.is_damaged

    def slots(self) -> Slots:
        """Every slot that can be found, ascending."""
        below = [] if self.segment is None else [self.segment.slots[self.alive.positions()]]
        return np.concatenate([*below, self.tail.slots()])

    def changed(self, slots: Slots, rows: Stored, gone: Slots) -> "LayeredIndex":
        """Return the index after a write; see ``FlatIndex.changed``."""
        alive = self.alive
        if self.segment is not None and len(gone):
            alive = alive.without(self.segment.places(np.sort(gone)))
        return replace(self, tail=self.tail.changed(slots, rows, gone), alive=alive)

    def after_writes(self, added: list[tuple[Slots, Stored]], gone: Slots) -> "LayeredIndex":
        """Return the index after several writes, of which later ones may undo earlier ones."""
        if not added:
            return self.changed(gone[:0], np.empty((0, self.dim), np.float32), gone)
        slots = np.concatenate([a[0] for a in added])
        rows = np.concatenate([a[1] for a in added])
        if len(gone):
            keep = ~np.isin(slots, gone)
            slots, rows = slots[keep], rows[keep]
        return self.changed(slots, rows, gone)

    def packed(self) -> "LayeredIndex":
        """Return the same index with the tail in as little memory as possible."""
        return replace(self, tail=self.tail.packed())

    def over(self, segment: Segment, sequence: int, gone: Slots) -> "LayeredIndex":
        """Return the same vectors with a new segment below.

        Args:
            segment: Built from a state of the past:
            sequence: that of this write.
            gone: At least the slots removed since, and no slot that can be found.
        """
        alive = Selection.everything(len(segment.slots))
        alive = alive.without(segment.places(np.unique(gone)))
        return LayeredIndex(self.tail.after(segment.last_slot), segment, alive, sequence)

    def search(
        self,
        queries: Embeddings,
        k: int,
        source: Source,
        among: Slots | None,
        params: SearchParams,
    ) -> Neighbours:
        """Return the ``min(k, count)`` nearest vectors of each query; ties by slot.

        Args:
            queries: (n, d) float32, finite; not zero under cosine.
            k: At least 1.
            source: Has the vectors that are not held in memory.
            among: Ascending slots, each of them in the index, to search instead of all.
            params: How hard to try.

        Raises:
            ReplacedError: If a vector that is not in memory is no longer there.
        """
        if self.segment is None:
            return self.tail.search(queries, k, among)
        chosen = self.alive
        if among is not None:
            chosen = Selection.of(self.segment.places(among), len(self.segment.slots))
        ready, step = prepared(queries, self.tail.metric), _QUERIES_AT_ONCE
        parts = [ready[i : i + step] for i in range(0, len(ready), step)]
        below = stacked([self.segment.search(p, k, chosen, params, source) for p in parts])
        if not self.tail.count:
            return below
        return joined([self.tail.search(queries, k, among), below], k)
