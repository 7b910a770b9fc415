"""Where an index takes vectors from that it does not hold itself."""

from collections.abc import Iterator
from typing import Protocol

from embedkit.retrieve.index.blocks import Slots
from embedkit.types import Embeddings

__all__ = ["ReplacedError", "Source", "Stopped"]


class ReplacedError(Exception):
    """A vector is no longer there: a write has overtaken the reader."""


class Stopped(Exception):
    """A build was told to end."""


class Source(Protocol):
    """The vectors of one collection up to some slot, as they were given.

    A slot stands for one vector for ever; between two calls, slots may vanish.
    """

    def slots(self) -> Slots:
        """Every slot, ascending."""
        ...

    def stream(self, after: int = 0) -> Iterator[tuple[Slots, Embeddings]]:
        """Every vector behind a slot in ascending order, some thousand at a time.

        Raises:
            Stopped: In a build that was told to end.
        """
        ...

    def fetch(self, slots: Slots) -> tuple[Slots, Embeddings]:
        """Those of some ascending slots that are there, with their vectors."""
        ...
