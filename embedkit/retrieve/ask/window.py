"""A part of the ranked hits: behind an offset, and of at least some score."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from embedkit.errors import InvalidInput
from embedkit.retrieve.ask.ranks import TRIES, at_least, bare, only, read
from embedkit.retrieve.store import Answer, Hits, Query, VectorStore

__all__ = ["check_threshold", "search"]


def search(
    store: VectorStore,
    name: str,
    query: Query,
    *,
    offset: int = 0,
    threshold: float | None = None,
) -> Answer:
    """Return the ``query.k`` hits behind the best ``offset`` ones, if their score suffices.

    Args:
        store: Holds the collection.
        name: The collection.
        query: What to search for.
        offset: Hits to leave out, at least 0; with ``k`` no more than the store's limit of k.
        threshold: Least score of a hit; None keeps all.

    Raises:
        InvalidInput: If offset or threshold is not allowed, or as ``VectorStore.search``.
    """
    if threshold is not None:
        check_threshold(threshold)
    if offset < 0:
        raise InvalidInput(f"expected an offset of at least 0, got {offset}")
    if (not offset and threshold is None) or query.k < 1:
        return store.search(name, query)
    least = -math.inf if threshold is None else np.float32(threshold)
    k = query.k + offset
    for _ in range(TRIES):
        answer = store.search(name, bare(query, k))
        hits = read(store, name, _part(answer, offset, least), query)
        if hits is not None:
            return replace(answer, hits=hits)
    answer = store.search(name, replace(query, k=k))
    return replace(answer, hits=_part(answer, offset, least))


def _part(answer: Answer, offset: int, least: float | np.float32) -> Sequence[Hits]:
    ranks = [range(offset, max(offset, count)) for count in at_least(answer.hits, least)]
    return only(answer.hits, ranks)


def check_threshold(threshold: float) -> None:
    """Refuse a score that nothing can be compared with.

    Raises:
        InvalidInput: If it is not a number.
    """
    if math.isnan(threshold):
        raise InvalidInput(f"expected a score threshold that is a number, got {threshold}")
