"""The index of a collection that is opened: its snapshot, and what came after it."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from embedkit.retrieve.index.blocks import Slots
from embedkit.retrieve.index.engines.source import Source
from embedkit.retrieve.index.layered import LayeredIndex
from embedkit.retrieve.index.selection import Selection
from embedkit.retrieve.index.snapshots.snapshot import SnapshotError, clear, read_snapshot
from embedkit.retrieve.index.storage import Stored

__all__ = ["restored"]

_LOG = logging.getLogger(__name__)


class StoredSource(Source, Protocol):
    """A source that gives vectors as they are stored, too."""

    def stored(self, after: int = 0) -> Iterator[tuple[Slots, Stored]]:
        """As ``stream``."""
        ...


def restored(
    folder: Path, digest: str, empty: LayeredIndex, source: StoredSource
) -> LayeredIndex:
    """Return the index of every vector of the source.

    A snapshot of an earlier state is caught up: slots that are gone are removed from it, and
    those behind it are added. One that cannot be that is not used.

    Args:
        folder: Of the collection; files in it that are no snapshot of it are removed.
        digest: Of the snapshot that belongs to the truth; empty for none.
        empty: An index without vectors.
        source: The truth.
    """
    index, after = empty, 0
    try:
        segment, sequence = read_snapshot(folder, digest)
        slots = source.slots()
        slots = slots[: np.searchsorted(slots, segment.last_slot, "right")]
        places = segment.places(slots)
        if len(places) < len(slots) or segment.spec.dim != empty.dim:
            raise SnapshotError("expected every vector of its time in the snapshot, got fewer")
        alive = Selection.of(places, len(segment.slots))
        index = LayeredIndex(empty.tail, segment, alive, sequence)
        after = segment.last_slot
    except SnapshotError as error:
        if digest:
            _LOG.warning("%s: %s; the index is built anew", folder, error)
    clear(folder, keep=digest if after else "")
    none = np.empty(0, np.int64)
    for slots, rows in source.stored(after):
        index = index.changed(slots, rows, none)
    return index
