"""Everything within a score, however many there are, up to a limit."""

from dataclasses import replace

import numpy as np

from embedkit.errors import InvalidInput
from embedkit.retrieve.ask.ranks import TRIES, at_least, bare, only, read
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
    k, tries = min(_FIRST, most), 0
    while True:
        is_read = tries == TRIES
        answer = store.search(name, replace(query, k=k) if is_read else bare(query, k))
        counts = at_least(answer.hits, least)
        if k < most and max(counts, default=0) == k:
            k = min(k * _GROWTH, most)
            continue
        kept = only(answer.hits, [range(min(count, query.k)) for count in counts])
        hits = kept if is_read else read(store, name, kept, query)
        if hits is not None:
            return replace(answer, hits=hits), tuple(count > query.k for count in counts)
        tries += 1
