"""The ids of a collection in memory, so that naming a hit does not read the disk.

A slot stands for one version of one vector for ever, so what a slot is called never changes.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import TypeVar, overload

import numpy as np
import numpy.typing as npt

from embedkit.retrieve.index.blocks import Slots
from embedkit.retrieve.store import Hits

__all__ = ["HitRuns", "HitTable", "Names"]

_LEAST_ROWS = 1024
# Names of slots that are gone are kept until they are as many as the others.
_SPARE_ROWS = 1 << 16
_ROWS_AT_ONCE = 1 << 16
# Cutting names out takes eight times their bytes for the time of one part.
_NAMES_AT_ONCE = 1 << 13
# So few are cut out one by one in less time than arrays of their bytes are made.
_FEW = 48

Bytes = npt.NDArray[np.uint8]
Value = TypeVar("Value", bound=np.generic)


@dataclass(frozen=True, eq=False)
class Names:
    """A value: adding names gives a new one, and who reads an old one is not disturbed.

    Arrays only grow behind the end that older values know of, and are copied where they are
    full. Unused rows take no memory.

    Attributes:
        count: Slots with a name, those that are gone included.
    """

    count: int = 0
    _slots: Slots = field(default_factory=lambda: np.empty(0, np.int64))
    # Where each name begins in the text, and the last one ends.
    _starts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))
    # All names in UTF-8, one after the other.
    _text: Bytes = field(default_factory=lambda: np.empty(0, np.uint8))

    @classmethod
    def read(cls, rows: Iterable[tuple[Slots, Sequence[str]]]) -> "Names":
        """Names of ascending slots, some at a time."""
        names = cls()
        for slots, texts in rows:
            names = names.added(slots, texts)
        return names

    def added(self, slots: Slots, names: Sequence[str]) -> "Names":
        """Return these names and those of further slots; only the newest may be added to.

        Args:
            slots: (n,) ascending, all above those that have a name.
            names: One for each.
        """
        texts = [name.encode() for name in names]
        new = np.frombuffer(b"".join(texts), np.uint8)
        start, end = int(self._starts[self.count]), self.count + len(slots)
        rows = _with_room(self._slots, self.count, end)
        starts = _with_room(self._starts, self.count + 1, end + 1)
        text = _with_room(self._text, start, start + len(new))
        rows[self.count : end] = slots
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        starts[self.count + 1 : end + 1] = start + np.cumsum(lengths)
        text[start : start + len(new)] = new
        return Names(end, rows, starts, text)

    def wants_packing(self, alive: int) -> bool:
        """Whether most of the names are of slots that are gone.

        Args:
            alive: Slots that are not.
        """
        return self.count > 2 * alive + _SPARE_ROWS

    def only(self, slots: Slots) -> "Names":
        """Return the names of some ascending slots, in memory of their own."""
        return Names.read(
            (slots[i : i + _ROWS_AT_ONCE], self.of(slots[i : i + _ROWS_AT_ONCE]))
            for i in range(0, len(slots), _ROWS_AT_ONCE)
        )

    def of(self, slots: Slots) -> list[str]:
        """The names of slots (n,) in any order, each of them added before."""
        if not len(slots):
            return []
        if len(slots) <= _FEW:
            places, text = self._places(slots), self._text.data
            spans = zip(
                self._starts[places].tolist(), self._starts[places + 1].tolist(), strict=True
            )
            return [str(text[start:end], "utf-8") for start, end in spans]
        data, lengths = self.packed(slots)
        ends = np.cumsum(lengths).tolist()
        joined = data.tobytes()
        if joined.isascii():
            whole = joined.decode("ascii")
            return [whole[a:b] for a, b in zip([0, *ends], ends, strict=False)]
        return [joined[a:b].decode() for a, b in zip([0, *ends], ends, strict=False)]

    def packed(self, slots: Slots, room: int = 0) -> tuple[Bytes, npt.NDArray[np.int64]]:
        """The names of slots (n,) in any order as bytes, one after the other.

        Args:
            slots: At least one.
            room: Bytes before each name, for the caller to fill.

        Returns:
            The bytes, and the length (n,) of each name without the room.
        """
        places = self._places(slots)
        starts = self._starts[places]
        lengths = self._starts[places + 1] - starts
        wide = lengths + room
        parts = range(0, len(slots), _NAMES_AT_ONCE)
        cut = [
            self._cut(starts[i : i + _NAMES_AT_ONCE] - room, wide[i : i + _NAMES_AT_ONCE])
            for i in parts
        ]
        return cut[0] if len(cut) == 1 else np.concatenate(cut), lengths

    def _cut(self, starts: Slots, wide: Slots) -> Bytes:
        """Bytes of the text from each start on, one after the other; may begin before it."""
        ends = np.cumsum(wide)
        index = np.arange(ends[-1])
        index += np.repeat(starts - (ends - wide), wide)
        return self._text.take(index, mode="clip")

    def size(self, slots: Slots) -> int:
        """UTF-8 bytes of the names of slots in any order, without making them."""
        if not slots.size:
            return 0
        places = self._places(slots)
        return int((self._starts[places + 1] - self._starts[places]).sum())

    def _places(self, slots: Slots) -> Slots:
        """Rows of slots that have one."""
        first, last = self._slots[0], self._slots[self.count - 1]
        if last - first + 1 == self.count:
            return slots - int(first)
        rows: Slots = np.searchsorted(self._slots[: self.count], slots)
        return rows


class HitTable(Sequence[Hits]):
    """The hits of each query, as many for all of them, without payloads and vectors.

    Arrays are what an answer to many queries is made from; ids become texts when asked for.

    Args:
        names: Has every slot.
        slots: (n, k) int64, best first.
        scores: (n, k) float32.
    """

    def __init__(self, names: Names, slots: Slots, scores: npt.NDArray[np.float32]) -> None:
        self._names = names
        self.slots = slots
        self.scores = scores

    def packed_ids(self, room: int) -> tuple[Bytes, npt.NDArray[np.int64]]:
        """All ids as bytes, and the length (n * k,) of each; see ``Names.packed``."""
        return self._names.packed(self.slots.ravel(), room)

    @property
    def id_bytes(self) -> int:
        """UTF-8 bytes of all ids, known before there are any texts."""
        return self._names.size(self.slots)

    @cached_property
    def _ids(self) -> list[str]:
        return self._names.of(self.slots.ravel())

    def only(self, ranks: Sequence[Sequence[int]]) -> "HitRuns":
        """The hits of some ranks of each query."""
        k = self.slots.shape[1]
        places = [np.asarray(r, np.int64) + row * k for row, r in enumerate(ranks)]
        chosen = np.concatenate(places)
        slots, scores = self.slots.ravel()[chosen], self.scores.ravel()[chosen]
        return HitRuns(self._names, slots, scores, [len(r) for r in ranks])

    def __len__(self) -> int:
        return len(self.slots)

    def __iter__(self) -> Iterator[Hits]:
        return map(self._row, range(len(self.slots)))

    @overload
    def __getitem__(self, index: int) -> Hits: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Hits, ...]: ...

    def __getitem__(self, index: int | slice) -> Hits | tuple[Hits, ...]:
        rows = range(len(self.slots))[index]
        return self._row(rows) if isinstance(rows, int) else tuple(map(self._row, rows))

    def _row(self, row: int) -> Hits:
        k = self.slots.shape[1]
        return Hits(self._ids[row * k : (row + 1) * k], self.scores[row], self.slots[row])


class HitRuns(Sequence[Hits]):
    """The hits of each query, of some more than of others; else as ``HitTable``.

    Args:
        names: Has every slot.
        slots: (m,) int64, those of one query after those of another, best first.
        scores: (m,) float32.
        counts: Hits of each query.
    """

    def __init__(
        self,
        names: Names,
        slots: Slots,
        scores: npt.NDArray[np.float32],
        counts: Sequence[int],
    ) -> None:
        self._names = names
        self.slots = slots
        self.scores = scores
        self._ends = [0, *accumulate(counts)]

    @property
    def id_bytes(self) -> int:
        """UTF-8 bytes of all ids, known before there are any texts."""
        return self._names.size(self.slots)

    @cached_property
    def _ids(self) -> list[str]:
        return self._names.of(self.slots)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> Hits: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Hits, ...]: ...

    def __getitem__(self, index: int | slice) -> Hits | tuple[Hits, ...]:
        rows = range(len(self))[index]
        return self._row(rows) if isinstance(rows, int) else tuple(map(self._row, rows))

    def _row(self, row: int) -> Hits:
        run = slice(self._ends[row], self._ends[row + 1])
        return Hits(self._ids[run], self.scores[run], self.slots[run])


def _with_room(array: npt.NDArray[Value], used: int, needed: int) -> npt.NDArray[Value]:
    """The array, or a copy of its used part with room for twice as much as needed."""
    if needed <= len(array):
        return array
    larger = np.empty(max(_LEAST_ROWS, 2 * needed), array.dtype)
    larger[:used] = array[:used]
    return larger
