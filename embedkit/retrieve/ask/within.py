"""Everything within a score, however many there are, up to a limit."""

from dataclasses import replace

import numpy as np

from embedkit.errors import InvalidInput
from embedkit.retrieve.ask.window import check_threshold
from embedkit.retrieve.store import Answer, Query, VectorStore

__all__ = ["MOST", "within"]

MOST = 9_999
"""Largest limit: one more hit is asked for, to know whether there is one."""

_FIRST = 64
_GROWTH = 8


def within(
    store: VectorStore, name: str, query: Query, threshold: float
) -> tuple[Answer, tuple[bool, ...]]:
    """Return all hits of at least a score, best first, and per query whether some are left out.

    Args:
        store: Holds the collection.
        name: The collection.
        query: What to search for; ``k`` is the most hits per query, at least 1.
        threshold: Least score of a hit.

    Raises:
        InvalidInput: If limit or threshold is not allowed, or as ``VectorStore.search``.
    """
    check_threshold(threshold)
    if not 1 <= query.k <= MOST:
        raise InvalidInput(f"expected a limit from 1 to {MOST}, got {query.k}")
    least = np.float32(threshold)
    most = query.k + 1
    k, is_probe = min(_FIRST, most), False
    while True:
        # How far to go is found without reading payloads.
        answer = store.search(name, _bare(query, k) if is_probe else replace(query, k=k))
        is_complete = k == most or all(
            len(hits) < k or hits.scores[-1] < least for hits in answer.hits
        )
        if is_complete and not is_probe:
            return _cut(answer, query.k, least)
        is_probe = not is_complete
        if not is_complete:
            k = min(k * _GROWTH, most)


def _bare(query: Query, k: int) -> Query:
    return replace(query, k=k, with_payload=False, with_vectors=False)


def _cut(answer: Answer, limit: int, least: np.float32) -> tuple[Answer, tuple[bool, ...]]:
    counts = [int((hits.scores >= least).sum()) for hits in answer.hits]
    kept = (
        hits.part(0, min(count, limit)) for hits, count in zip(answer.hits, counts, strict=True)
    )
    return replace(answer, hits=tuple(kept)), tuple(count > limit for count in counts)
