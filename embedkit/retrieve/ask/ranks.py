"""Ranks first, contents later: what is not part of an answer is not read for it."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from embedkit.retrieve.index.blocks import Slots
from embedkit.retrieve.limits import check_bytes
from embedkit.retrieve.names import HitRuns, HitTable
from embedkit.retrieve.store import Hits, Query, Row, VectorStore

__all__ = ["TRIES", "at_least", "bare", "only", "read", "slots_of"]

TRIES = 8
"""A search whose hits were replaced before they were read is repeated so often. After that the
store reads them itself, and more than are returned, because it can hold writes back."""

_ROWS_AT_ONCE = 4096


def bare(query: Query, k: int) -> Query:
    """The query for ``k`` ranks alone."""
    return replace(query, k=k, with_payload=False, with_vectors=False)


def at_least(hits: Sequence[Hits], least: float | np.float32) -> list[int]:
    """How many hits of each query have at least a score."""
    if isinstance(hits, HitTable):  # without its ids
        return [int(count) for count in (hits.scores >= least).sum(axis=1)]
    return [int((found.scores >= least).sum()) for found in hits]


def slots_of(hits: Sequence[Hits]) -> list[Slots]:
    """The slots of each query's hits."""
    if isinstance(hits, HitTable):
        return list(hits.slots)
    return [found.slots for found in hits]


def only(hits: Sequence[Hits], ranks: Sequence[Sequence[int]]) -> Sequence[Hits]:
    """The hits of some ranks of each query."""
    if isinstance(hits, HitTable):
        return hits.only(ranks)
    return tuple(found.only(mine) for found, mine in zip(hits, ranks, strict=True))


def read(
    store: VectorStore, name: str, hits: Sequence[Hits], query: Query
) -> Sequence[Hits] | None:
    """Hits with the contents that a query asks for; None if one of them has been replaced.

    Args:
        store: Holds the collection.
        name: The collection.
        hits: Without contents.
        query: What is asked for, and how many bytes it may be.

    Raises:
        MessageTooLarge: If it is more.
    """
    if not len(hits) or not (query.with_payload or query.with_vectors):
        return hits
    if isinstance(hits, HitRuns):
        slots, size = hits.slots, hits.id_bytes
    else:
        slots = np.concatenate(slots_of(hits))
        size = sum(len(i.encode()) for found in hits for i in found.ids)
    if query.with_vectors:
        size += len(slots) * query.vectors[0].nbytes
    check_bytes(size, query.answer_bytes)
    distinct, counts = np.unique(slots, return_counts=True)
    rows = _rows(store, name, distinct.tolist(), query)
    if rows is None:
        return None
    payloads = (row.payload or b"" for row in rows.values())
    size += int(counts @ np.fromiter(map(len, payloads), np.int64, len(rows)))
    check_bytes(size, query.answer_bytes)
    has_payloads = any(row.payload is not None for row in rows.values())
    return tuple(_filled(found, rows, query, has_payloads) for found in hits)


def _rows(
    store: VectorStore, name: str, slots: list[int], query: Query
) -> dict[int, Row] | None:
    """What is under slots, in their order; None if one of them is gone."""
    rows: dict[int, Row] = {}
    left = query.answer_bytes
    for start in range(0, len(slots), _ROWS_AT_ONCE):
        part = store.at(
            name,
            slots[start : start + _ROWS_AT_ONCE],
            with_payload=query.with_payload,
            with_vectors=query.with_vectors,
            answer_bytes=left,
            patience=query.patience,
        )
        for row in part:
            if row is None:
                return None
            rows[row.slot] = row
            left -= row.size
    return rows


def _filled(hits: Hits, rows: dict[int, Row], query: Query, has_payloads: bool) -> Hits:
    mine = [rows[slot] for slot in hits.slots.tolist()]
    vectors = [row.vector for row in mine if row.vector is not None]
    return replace(
        hits,
        payloads=[row.payload for row in mine] if has_payloads else None,
        vectors=np.stack(vectors) if vectors else None,
    )
