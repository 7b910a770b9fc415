"""Compare an index with the truth that it was derived from."""

from collections.abc import Iterable

import numpy as np

from embedkit.retrieve.index.blocks import Slots
from embedkit.retrieve.index.engines.rows import RowsDamagedError
from embedkit.retrieve.index.layered import LayeredIndex
from embedkit.retrieve.index.scoring import prepared
from embedkit.types import Embeddings

__all__ = ["differences"]

# Of float64 sums of float32 differences.
_ROUNDING = 1e-6


def differences(
    index: LayeredIndex, truth: Iterable[tuple[Slots, Embeddings]]
) -> tuple[int, list[str]]:
    """Compare every vector of the truth with the one in the index.

    Args:
        index: At the same state as the truth.
        truth: Every slot in ascending order with its vector, some at a time.

    Returns:
        How many vectors the truth has, and what is wrong.
    """
    count, missing, other = 0, 0, 0
    problems = []
    for slots, vectors in truth:
        count += len(slots)
        rows = prepared(vectors, index.tail.metric)
        in_tail, held = index.tail.held(slots)
        other += int((held != rows[in_tail]).any(axis=1).sum())
        found = len(in_tail)
        if index.segment is not None:
            there = np.isin(slots, index.segment.slots)
            places = index.segment.places(slots)
            alive = index.alive.holds(places)
            found += int(alive.sum())
            coded = index.segment.engine.vectors(places[alive]).astype(np.float64)
            error = ((coded - rows[there][alive]) ** 2).sum(axis=1)
            is_other = error > index.segment.largest_error + _ROUNDING
            kept = index.segment.rows
            if kept is not None and not kept.is_damaged:
                try:
                    is_other |= (kept.read(places[alive]) != rows[there][alive]).any(axis=1)
                except RowsDamagedError as error:
                    problems.append(f"the file of whole vectors is damaged: {error}")
            other += int(is_other.sum())
        missing += len(slots) - found
    if missing:
        problems.append(f"{missing} vectors of the truth are not in the index")
    if other:
        problems.append(f"{other} vectors differ between truth and index")
    if index.count != count:
        problems.append(f"the index has {index.count} vectors, the truth {count}")
    return count, problems
