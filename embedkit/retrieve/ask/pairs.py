"""Near-duplicates: the pairs of a collection that are within a score, page by page."""

import time
from dataclasses import dataclass, field

import numpy as np

from embedkit.errors import InvalidInput
from embedkit.retrieve.ask.within import within
from embedkit.retrieve.patience import FOREVER, Patience
from embedkit.retrieve.store import Hits, Query, Row, Scan, VectorStore
from embedkit.types import SearchParams

__all__ = ["Pair", "Pairs", "Wanted", "pairs"]

_AT_ONCE = 256
_PAGE_S = 2.0
_MOST_PAIRS, _MOST_NEIGHBOURS = 100_000, 1_000


@dataclass(frozen=True)
class Wanted:
    """Which pairs to look for.

    Attributes:
        threshold: Least score of a pair.
        after: Slot behind which to go on; 0 to begin.
        limit: Pairs at which a page ends; it may have ``neighbours`` more.
        neighbours: Vectors within the threshold that are looked at for each vector.
        filter: Expression over the payloads of both; empty for none.
        params: How hard the index tries.
        patience: How long the page is waited for.
    """

    threshold: float
    after: int = 0
    limit: int = 1000
    neighbours: int = 100
    filter: str = ""
    params: SearchParams = field(default_factory=SearchParams)
    patience: Patience = FOREVER


@dataclass(frozen=True)
class Pair:
    """The ids of two items; the first was written before the second."""

    first: str
    second: str
    score: float


@dataclass(frozen=True)
class Pairs:
    """A page of pairs.

    Attributes:
        pairs: In the order in which the second was written, best first for each.
        after: Slot behind which the next page begins; None after the last.
        exact: Whether the index missed none.
        cut: Whether a vector has more neighbours than were looked at.
    """

    pairs: tuple[Pair, ...]
    after: int | None
    exact: bool
    cut: bool


def pairs(store: VectorStore, name: str, wanted: Wanted) -> Pairs:
    """Find pairs, each of them once: among the neighbours of the one written later.

    Memory is bounded by the page. A page ends after two seconds too, so that no call takes
    long: it may be empty without being the last.

    Raises:
        InvalidInput: If limit, neighbours, threshold or filter is not allowed.
    """
    if not 1 <= wanted.limit <= _MOST_PAIRS or not 1 <= wanted.neighbours <= _MOST_NEIGHBOURS:
        raise InvalidInput(
            f"expected a limit from 1 to {_MOST_PAIRS} and from 1 to {_MOST_NEIGHBOURS} "
            f"neighbours, got {wanted.limit} and {wanted.neighbours}"
        )
    end = time.monotonic() + _PAGE_S
    found: list[Pair] = []
    after: int | None = wanted.after
    exact, cut = True, False
    while after is not None:
        page = store.scan(name, _scan(wanted, after))
        after = page.after
        if page.rows:
            answer, cuts = within(store, name, _query(wanted, page.rows), wanted.threshold)
            exact &= answer.exact
            for row, hits, is_cut in zip(page.rows, answer.hits, cuts, strict=True):
                cut |= is_cut
                found += _earlier(row, hits)
                if len(found) >= wanted.limit:
                    is_last = after is None and row is page.rows[-1]
                    return Pairs(tuple(found), None if is_last else row.slot, exact, cut)
        if time.monotonic() > end:
            break
    return Pairs(tuple(found), after, exact, cut)


def _scan(wanted: Wanted, after: int) -> Scan:
    return Scan(
        after,
        _AT_ONCE,
        wanted.filter,
        with_payload=False,
        with_vectors=True,
        patience=wanted.patience,
    )


def _query(wanted: Wanted, rows: tuple[Row, ...]) -> Query:
    vectors = np.array([row.vector for row in rows], np.float32)
    return Query(
        vectors,
        # The vector itself is one of those found.
        wanted.neighbours + 1,
        wanted.filter,
        with_payload=False,
        params=wanted.params,
        patience=wanted.patience,
    )


def _earlier(row: Row, hits: Hits) -> list[Pair]:
    earlier = np.flatnonzero(hits.slots < row.slot).tolist()
    return [Pair(hits.ids[i], row.id, float(hits.scores[i])) for i in earlier]
