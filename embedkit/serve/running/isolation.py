"""A batch that fails is taken apart, so that one poisonous image fails alone."""

from collections.abc import Callable, Iterator
from typing import Generic, NamedTuple, TypeVar

from embedkit.serve.job import Batch

__all__ = ["Outcome", "run_isolating"]

P = TypeVar("P")
R = TypeVar("R")


class Outcome(NamedTuple, Generic[P, R]):
    """A batch, or a piece of one, with its result or its failure."""

    batch: Batch[P, R]
    result: R | None
    error: Exception | None = None


def run_isolating(
    batch: Batch[P, R], run: Callable[[Batch[P, R]], R]
) -> Iterator[Outcome[P, R]]:
    """Run a batch; on failure halve the failing piece until the images at fault stand alone.

    One bad image in n costs ``2 * ceil(log2(n))`` further runs. That is also the limit: where
    many images fail, as with a broken engine, what is left fails together instead of keeping
    the engine busy with hopeless work.

    Args:
        batch: At least one image.
        run: Returns one row per image, or raises.

    Yields:
        Pieces in order that cover every image exactly once.
    """
    budget = 1 + 2 * (batch.size - 1).bit_length()
    waiting = [batch]
    failure: Exception | None = None
    while waiting:
        piece = waiting.pop()
        if budget <= 0:
            yield Outcome(piece, None, failure)
            continue
        budget -= 1
        try:
            result = run(piece)
        except Exception as error:
            failure = error
            if piece.size == 1:
                yield Outcome(piece, None, error)
            else:
                waiting.extend(reversed(piece.halves()))
        else:
            yield Outcome(piece, result)
