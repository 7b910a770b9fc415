"""The nearest vectors of some queries: lists of the best, and what becomes of equal scores."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.retrieve.index.blocks import Slots
from embedkit.types import Embeddings

__all__ = ["MARGIN", "Mask", "Neighbours", "cut_ties", "joined", "settled", "stacked"]

MARGIN = 8
"""More candidates than asked for, so that rounding in FAISS does not cost the last place."""

# Of more vectors than that with one score, those that are shown may not be the first written.
_LARGEST_MARGIN = MARGIN << 12

FloatScores = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Search = Callable[[Embeddings, int], tuple["Neighbours", Mask]]


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest vectors of each query, best first; ties by slot.

    Attributes:
        slots: (n, k) int64.
        scores: (n, k) float64, higher is better.
        exact: Whether no neighbour can have been missed.
    """

    slots: Slots
    scores: FloatScores
    exact: bool = True

    @classmethod
    def none(cls, queries: int) -> "Neighbours":
        """No neighbours for some queries."""
        return cls(np.empty((queries, 0), np.int64), np.empty((queries, 0), np.float64))

    @classmethod
    def unknown(cls, queries: int, k: int) -> "Neighbours":
        """Places for ``k`` neighbours of some queries, none of which was found."""
        scores = np.full((queries, k), -np.inf)
        return cls(np.zeros((queries, k), np.int64), scores, exact=False)

    @classmethod
    def ranked(
        cls, slots: Slots, scores: FloatScores, k: int, *, exact: bool = True
    ) -> "Neighbours":
        """The best ``k`` of each row of candidates in any order; -inf stands for none."""
        if (scores[:, 1:] < scores[:, :-1]).all():  # as FAISS's order mostly is for one query
            return cls(slots[:, :k], scores[:, :k], exact)
        row = np.arange(len(scores))[:, None]
        order = np.argsort(-scores, axis=1)
        best = scores[row, order]
        if (best[:, 1:] == best[:, :-1]).any():  # slots decide; which takes twice as long
            order = np.lexsort((slots, -scores), axis=1)
            best = scores[row, order]
        return cls(slots[row, order[:, :k]], best[:, :k], exact)


def cut_ties(scores: FloatScores, k: int) -> Mask:
    """For which rows of candidates the worst equals the ``k``-th best: there may be more."""
    if scores.shape[1] <= k:
        return np.zeros(len(scores), np.bool_)
    better = (scores > scores.min(axis=1)[:, None]).sum(axis=1)
    return np.asarray(better < k)


def settled(search: Search, queries: Embeddings) -> Neighbours:
    """Neighbours of which equal ones are the first written, by ever more candidates.

    Args:
        search: Given some queries and a margin, the neighbours among as many candidates more
            than asked for, and for which queries that may have cut equal scores.
        queries: (n, d) prepared float32.
    """
    margin = MARGIN
    near, cut = search(queries, margin)
    if not cut.any():
        return near
    slots, scores, left = near.slots.copy(), near.scores.copy(), np.flatnonzero(cut)
    while len(left) and margin < _LARGEST_MARGIN:
        margin *= 8
        near, cut = search(queries[left], margin)
        slots[left], scores[left] = near.slots, near.scores
        left = left[cut]
    return Neighbours(slots, scores, near.exact)


def joined(parts: Sequence[Neighbours], k: int) -> Neighbours:
    """The best ``k`` of several lists for the same queries."""
    filled = [part for part in parts if part.slots.shape[1]]
    if len(filled) <= 1:
        only = (filled or parts)[0]
        return Neighbours(only.slots[:, :k], only.scores[:, :k], only.exact)
    return Neighbours.ranked(
        np.concatenate([part.slots for part in filled], axis=1),
        np.concatenate([part.scores for part in filled], axis=1),
        k,
        exact=all(part.exact for part in filled),
    )


def stacked(parts: Sequence[Neighbours]) -> Neighbours:
    """The answers to some queries and those to others, one below the other."""
    if len(parts) <= 1:
        return parts[0] if parts else Neighbours.none(0)
    return Neighbours(
        np.concatenate([part.slots for part in parts]),
        np.concatenate([part.scores for part in parts]),
        all(part.exact for part in parts),
    )
