"""A part of the ranked hits: behind an offset, and of at least some score."""

import math
from dataclasses import replace

import numpy as np

from embedkit.errors import InvalidInput
from embedkit.retrieve.store import Answer, Query, VectorStore

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
    if not offset or query.k < 1:
        answer = store.search(name, query)
    else:
        answer = store.search(name, replace(query, k=query.k + offset))
    if not offset and threshold is None:
        return answer
    least = -math.inf if threshold is None else np.float32(threshold)
    kept = (hits.part(offset, int((hits.scores >= least).sum())) for hits in answer.hits)
    return replace(answer, hits=tuple(kept))


def check_threshold(threshold: float) -> None:
    """Refuse a score that nothing can be compared with.

    Raises:
        InvalidInput: If it is not a number.
    """
    if math.isnan(threshold):
        raise InvalidInput(f"expected a score threshold that is a number, got {threshold}")
