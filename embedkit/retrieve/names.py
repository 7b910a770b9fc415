"""The ids of a collection in memory, so that naming a hit does not read the disk.

A slot stands for one version of one vector for ever, so what a slot is called never changes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from embedkit.retrieve.index.blocks import Slots

__all__ = ["Names"]

_ROWS = 1 << 18
# Names of slots that are gone are kept until they are as many as the others.
_SPARE_ROWS = 1 << 16


@dataclass(frozen=True, eq=False)
class _Part:
    """The names of up to 262,144 slots, in UTF-8 one after the other.

    A part only grows behind the end that older readers know of. Unused rows take no memory.

    Attributes:
        slots: (rows,) int64, ascending.
        ends: (rows,) uint32, where each name ends in ``text``.
        text: All names.
        count: Rows in use; those behind belong to newer parts.
    """

    slots: Slots = field(default_factory=lambda: np.empty(_ROWS, np.int64))
    ends: npt.NDArray[np.uint32] = field(default_factory=lambda: np.empty(_ROWS, np.uint32))
    text: bytearray = field(default_factory=bytearray)
    count: int = 0

    def appended(self, slots: Slots, names: Sequence[str]) -> "_Part":
        """The part with rows added; only the newest may be added to."""
        end = self.count + len(slots)
        texts = [name.encode() for name in names]
        start = int(self.ends[self.count - 1]) if self.count else 0
        del self.text[start:]  # of a write that was not committed
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        self.slots[self.count : end] = slots
        self.ends[self.count : end] = start + np.cumsum(lengths)
        self.text.extend(b"".join(texts))
        return _Part(self.slots, self.ends, self.text, end)

    def named(self, slots: Slots) -> list[str]:
        """The names of slots that are in here."""
        first, last = int(self.slots[0]), int(self.slots[self.count - 1])
        if last - first + 1 == self.count:
            places = slots - first
        else:
            places = np.searchsorted(self.slots[: self.count], slots)
        starts = np.where(places > 0, self.ends[places - 1], 0).tolist()
        ends = self.ends[places].tolist()
        text = self.text
        return [text[a:b].decode() for a, b in zip(starts, ends, strict=True)]


@dataclass(frozen=True, eq=False)
class Names:
    """A value: adding names gives a new one, and who reads an old one is not disturbed."""

    _parts: tuple[_Part, ...] = ()

    @classmethod
    def read(cls, rows: Iterable[tuple[Slots, Sequence[str]]]) -> "Names":
        """Names of ascending slots, some at a time."""
        names = cls()
        for slots, texts in rows:
            names = names.added(slots, texts)
        return names

    @property
    def count(self) -> int:
        """Slots with a name, those that are gone included."""
        return sum(part.count for part in self._parts)

    def added(self, slots: Slots, names: Sequence[str]) -> "Names":
        """Return these names and those of further slots; only the newest may be added to.

        Args:
            slots: (n,) ascending, all above those that have a name.
            names: One for each.
        """
        parts = list(self._parts)
        start = 0
        while start < len(slots):
            if not parts or parts[-1].count == _ROWS:
                parts.append(_Part())
            end = min(len(slots), start + _ROWS - parts[-1].count)
            parts[-1] = parts[-1].appended(slots[start:end], names[start:end])
            start = end
        return Names(tuple(parts))

    def wants_packing(self, alive: int) -> bool:
        """Whether most of the names are of slots that are gone.

        Args:
            alive: Slots that are not.
        """
        return self.count > 2 * alive + _SPARE_ROWS

    def only(self, slots: Slots) -> "Names":
        """Return the names of some ascending slots, in memory of their own."""
        return Names.read(
            (slots[i : i + _ROWS], self.of(slots[i : i + _ROWS]))
            for i in range(0, len(slots), _ROWS)
        )

    def of(self, slots: Slots) -> list[str]:
        """The names of slots (n,) in any order, each of them added before."""
        if len(self._parts) == 1:
            return self._parts[0].named(slots)
        found: npt.NDArray[np.object_] = np.empty(len(slots), object)
        firsts = [part.slots[0] for part in self._parts]
        homes = np.searchsorted(firsts, slots, "right") - 1
        for number in np.unique(homes).tolist():
            mine = homes == number
            found[mine] = self._parts[number].named(slots[mine])
        names: list[str] = found.tolist()
        return names
