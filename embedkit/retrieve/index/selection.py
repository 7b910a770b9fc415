"""Which rows of an immutable set may be found: the living, or those that a filter left."""

from dataclasses import dataclass, field

import faiss
import numpy as np
import numpy.typing as npt

from embedkit.retrieve.index.blocks import Slots

__all__ = ["Selection"]

Bits = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Selection:
    """A set of positions among ``total``; never changed.

    Attributes:
        total: Rows of which some are selected.
        count: Rows selected.
        bits: One bit per row, the lowest first, or None where all are selected.
    """

    total: int
    count: int
    bits: Bits | None = field(default=None)

    @classmethod
    def everything(cls, total: int) -> "Selection":
        """All rows."""
        return cls(total, total)

    @classmethod
    def of(cls, positions: Slots, total: int) -> "Selection":
        """Some rows."""
        if len(positions) == total:
            return cls.everything(total)
        mask = np.zeros(total, np.bool_)
        mask[positions] = True
        return cls(total, len(positions), np.packbits(mask, bitorder="little"))

    @property
    def share(self) -> float:
        """Selected rows as a fraction in [0, 1]."""
        return self.count / self.total if self.total else 1.0

    def without(self, positions: Slots) -> "Selection":
        """The set without some rows, which may be out of it already."""
        if not len(positions):
            return self
        if self.bits is None:
            bits = np.full((self.total + 7) // 8, 255, np.uint8)
            if self.total % 8:
                bits[-1] = (1 << self.total % 8) - 1
        else:
            bits = self.bits.copy()
        others = ~(np.uint8(1) << (positions & 7).astype(np.uint8))
        np.bitwise_and.at(bits, positions >> 3, others)
        return Selection(self.total, int(np.bitwise_count(bits).sum()), bits)

    def holds(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Whether each position, of any shape, is selected."""
        if self.bits is None:
            return np.ones(positions.shape, np.bool_)
        chosen: npt.NDArray[np.bool_] = (
            self.bits[positions >> 3] >> (positions & 7).astype(np.uint8) & 1
        ).astype(np.bool_)
        return chosen

    def positions(self) -> Slots:
        """Ascending positions of the selected rows."""
        if self.bits is None:
            return np.arange(self.total)
        return np.flatnonzero(np.unpackbits(self.bits, count=self.total, bitorder="little"))

    def selector(self) -> faiss.IDSelector | None:
        """The set as FAISS wants it; None selects all. It refers to this set's memory."""
        if self.bits is None:
            return None
        return faiss.IDSelectorBitmap(self.bits)  # type: ignore[call-arg,arg-type]
