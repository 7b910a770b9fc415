"""The vectors of a collection, for what is derived from them."""

from collections.abc import Callable, Iterator

from embedkit.retrieve.index.blocks import Slots
from embedkit.retrieve.index.storage import Stored
from embedkit.retrieve.truth.truth import Truth
from embedkit.types import Embeddings

__all__ = ["Vectors"]


class Vectors:
    """The vectors of a collection up to some slot, for who derives something from them.

    Args:
        truth: Has them.
        upto: The highest slot.
        check: Called before each read; raises to end it.
    """

    def __init__(
        self, truth: Truth, upto: int, check: Callable[[], None] = lambda: None
    ) -> None:
        self._truth = truth
        self._upto = upto
        self._check = check

    def slots(self) -> Slots:
        """Every slot, ascending."""
        return self._truth.slots(self._upto)

    def stream(self, after: int = 0) -> Iterator[tuple[Slots, Embeddings]]:
        """Every vector behind a slot in ascending order, some thousand at a time."""
        for slots, rows in self.stored(after):
            yield slots, self._truth.storage.decoded(rows)

    def stored(self, after: int = 0) -> Iterator[tuple[Slots, Stored]]:
        """As ``stream``, as they are stored."""
        for part in self._truth.vectors(after, self._upto):
            self._check()
            yield part

    def fetch(self, slots: Slots) -> tuple[Slots, Embeddings]:
        """Those of some ascending slots that are there, with their vectors."""
        return self._truth.fetch(slots)
