"""Vectors in memory as immutable sets that share what they have in common.

A change gives a new tuple of blocks; readers of an old one are never disturbed. A block only
grows behind the end that older readers know of, and a removed vector stays in its block, marked
dead, until there are so many that a copy of the block is cheaper.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from embedkit.retrieve.index.storage import Storage, Stored

__all__ = ["Block", "Slots", "filled", "removed"]

Slots = npt.NDArray[np.int64]

# Large enough that FAISS runs at full speed, small enough to copy in 10 ms.
_BLOCK_BYTES = 32 << 20


def _none() -> Slots:
    return np.empty(0, np.int64)


@dataclass(frozen=True, eq=False)
class Block:
    """Up to 32 MiB of vectors in ascending order of their slots.

    Attributes:
        rows: (capacity, ...) as stored; those from ``count`` on belong to newer blocks.
        slots: (capacity,) int64.
        count: Rows in use, dead ones included.
        dead: Ascending positions of removed rows.
    """

    rows: Stored
    slots: Slots
    count: int = 0
    dead: Slots = field(default_factory=_none)

    @classmethod
    def empty(cls, storage: Storage) -> "Block":
        """A block without vectors; unused pages take no memory."""
        capacity = max(1024, _BLOCK_BYTES // storage.width)
        return cls(storage.empty(capacity), np.empty(capacity, np.int64))

    @property
    def alive(self) -> int:
        """Rows that can be found."""
        return self.count - len(self.dead)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the rows in use; the others take no memory."""
        return self.count * (self.rows[:1].nbytes + self.slots[:1].nbytes)

    @property
    def last(self) -> int:
        """The highest slot in it; 0 if there is none."""
        return int(self.slots[self.count - 1]) if self.count else 0

    @property
    def free(self) -> int:
        """Rows that can be added."""
        return len(self.slots) - self.count

    def appended(self, slots: Slots, rows: Stored) -> "Block":
        """Return the block with rows added; only the newest version may be added to."""
        end = self.count + len(slots)
        self.slots[self.count : end] = slots
        self.rows[self.count : end] = rows
        return replace(self, count=end)

    def without(self, slots: Slots) -> "Block":
        """Return the block without those of the ascending ``slots`` that are in it."""
        hits = self.places(slots)
        if not len(hits):
            return self
        block = replace(self, dead=np.union1d(self.dead, hits))
        # Each dead row is one more candidate that every search of this block has to ask for.
        if len(block.dead) <= max(256, block.count // 64):
            return block
        slots, rows = block.living()
        return Block(rows, slots, len(slots))

    def places(self, slots: Slots) -> Slots:
        """Ascending positions of those of the ascending ``slots`` that are in the block."""
        mine = self.slots[: self.count]
        slots = slots[
            np.searchsorted(slots, mine[0]) : np.searchsorted(slots, mine[-1], "right")
        ]
        places = np.searchsorted(mine, slots)
        hits: Slots = places[mine[places] == slots]
        return hits

    def living(self) -> tuple[Slots, Stored]:
        """Copies of the rows that are not dead."""
        keep = np.delete(np.arange(self.count), self.dead)
        return self.slots[keep], self.rows[keep]


def filled(
    blocks: Iterable[Block], parts: Iterable[tuple[Slots, Stored]], storage: Storage
) -> tuple[Block, ...]:
    """Return the blocks with rows added behind the last, in new blocks where it is full."""
    result = list(blocks)
    for slots, rows in parts:
        start = 0
        while start < len(slots):
            if not result or not result[-1].free:
                result.append(Block.empty(storage))
            end = start + min(len(slots) - start, result[-1].free)
            result[-1] = result[-1].appended(slots[start:end], rows[start:end])
            start = end
    return tuple(result)


def removed(blocks: tuple[Block, ...], slots: Slots, storage: Storage) -> tuple[Block, ...]:
    """Return the blocks without ``slots``, packed anew when they have become too many."""
    if not len(slots):
        return blocks
    gone = np.sort(slots)
    kept = tuple(b for b in (block.without(gone) for block in blocks) if b.alive)
    needed = sum(b.alive for b in kept) * storage.width // _BLOCK_BYTES + 1
    return packed(kept, storage) if len(kept) > 2 * needed + 1 else kept


def packed(blocks: tuple[Block, ...], storage: Storage) -> tuple[Block, ...]:
    """Return the same living rows in as few blocks as possible."""
    return filled((), (block.living() for block in blocks), storage)
