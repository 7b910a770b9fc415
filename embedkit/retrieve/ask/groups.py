"""The best groups of hits that have one value of a payload key in common."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

import numpy as np

from embedkit.errors import InvalidInput, MessageTooLarge
from embedkit.retrieve.ask.ranks import TRIES, bare, only, read, slots_of
from embedkit.retrieve.filter.expression import Exists, Key
from embedkit.retrieve.filter.grammar import parse
from embedkit.retrieve.limits import check_bytes
from embedkit.retrieve.names import HitRuns
from embedkit.retrieve.store import Answer, Hits, Query, VectorStore

__all__ = ["Group", "Grouped", "grouped"]

# Candidates beyond those that the answer itself needs, before members may be missing.
_SPARE = 16
_LEAST = 1024
_MOST, _MOST_HITS = 10_000, 1_000_000
_GROWTH = 4
_ROWS_AT_ONCE = 256

Value = str | int | float | bool


@dataclass(frozen=True, eq=False)
class Group:
    """Hits with one value, best first.

    Attributes:
        value: Of the key.
        hits: At least one.
    """

    value: Value
    hits: Hits


@dataclass(frozen=True)
class Grouped:
    """The best groups of each query.

    Attributes:
        groups: One tuple per query; the group with the best hit first.
        exact: Whether neither a group nor a member can have been missed.
        answer: What they were made of.
    """

    groups: tuple[tuple[Group, ...], ...]
    exact: bool
    answer: Answer


def grouped(store: VectorStore, name: str, query: Query, key: str, size: int) -> Grouped:
    """Return the best ``query.k`` groups of up to ``size`` hits each.

    A group ranks as its best hit. Hits whose payload has no text, number or boolean under the
    key are left out. Members come from a growing number of candidates; where that ends before
    every group is full, the answer is not exact.

    Args:
        store: Holds the collection.
        name: The collection.
        query: What to search for; ``k`` counts groups.
        key: Payload key, nested ones with dots, as in filters.
        size: Hits of each group, at least 1.

    Raises:
        InvalidInput: If key, size or ``k`` is not allowed, or as ``VectorStore.search``.
    """
    path = _path(key)
    wanted = query.k * size
    if size < 1 or query.k < 1 or wanted > _MOST:
        raise InvalidInput(
            f"expected k and a group size of at least 1, and at most {_MOST} hits in all "
            f"groups, got k={query.k} and {size}"
        )
    most = min(_MOST, max(wanted, _MOST_HITS // max(1, len(query.vectors))))
    most = min(most, max(_LEAST, _SPARE * wanted))
    asking = _Asking(store, name, query, path, (query.k, size))
    for _ in range(TRIES):
        found = _grown(asking, min(most, 2 * wanted), most)
        hits = None if found is None else _read(asking, found)
        if found is not None and hits is not None:
            return _answer(found, hits)
    found = _whole(asking, min(most, 2 * wanted))
    members = only(found.answer.hits, _ranks(found))
    if not query.with_payload:
        members = [replace(hits, payloads=None) for hits in members]
    return _answer(found, members)


@dataclass(frozen=True)
class _Members:
    """Which of a query's hits have one value, by rank."""

    value: Value
    ranks: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class _Found:
    groups: list[list[_Members]]
    is_complete: bool
    answer: Answer


@dataclass(frozen=True)
class _Asking:
    """What is asked, and what is known of the payloads by now.

    Attributes:
        store: Holds the collection.
        name: The collection.
        query: What to search for.
        path: To the value.
        shape: Groups, and hits of each.
        values: Of each slot whose payload has been read, because it stays the same.
    """

    store: VectorStore
    name: str
    query: Query
    path: Key
    shape: tuple[int, int]
    values: dict[int, Value | None] = field(default_factory=dict)


def _grown(asking: _Asking, k: int, most: int) -> _Found | None:
    """The groups among as many candidates as it takes; None if one has been replaced."""
    found = _asked(asking, k, sys.maxsize)
    while found is not None and not found.is_complete and k < most:
        k = min(most, k * _GROWTH)
        try:
            found = _asked(asking, k, asking.query.answer_bytes)
        except MessageTooLarge:  # that is much to read: what there is so far must do
            break
    return found


def _asked(asking: _Asking, k: int, payload_bytes: int) -> _Found | None:
    """The groups among ``k`` candidates; None if one has been replaced.

    Raises:
        MessageTooLarge: If payloads that are not known have more bytes than that.
    """
    answer = asking.store.search(asking.name, bare(asking.query, k))
    slots = slots_of(answer.hits)
    distinct = np.unique(np.concatenate(slots)).tolist() if slots else []
    fresh = [slot for slot in distinct if slot not in asking.values]
    for start in range(0, len(fresh), _ROWS_AT_ONCE):
        rows = asking.store.at(
            asking.name,
            fresh[start : start + _ROWS_AT_ONCE],
            answer_bytes=payload_bytes,
            patience=asking.query.patience,
        )
        for row in rows:
            if row is None:
                return None
            asking.query.patience.check()
            asking.values[row.slot] = _value(row.payload, asking.path)
            payload_bytes -= row.size
    return _shaped(asking, answer, k)


def _whole(asking: _Asking, k: int) -> _Found:
    """The groups among ``k`` candidates, with contents that the store reads itself."""
    query = replace(asking.query, k=k, with_payload=True)
    answer = asking.store.search(asking.name, query)
    for hits in answer.hits:
        payloads = hits.payloads or [None] * len(hits)
        for slot, payload in zip(hits.slots.tolist(), payloads, strict=True):
            asking.values[slot] = _value(payload, asking.path)
    return _shaped(asking, answer, k)


def _shaped(asking: _Asking, answer: Answer, k: int) -> _Found:
    """The best groups of each query, and whether none can lack a member."""
    groups, is_complete = [], True
    for slots in slots_of(answer.hits):
        asking.query.patience.check()
        values = [asking.values[slot] for slot in slots.tolist()]
        mine, is_full = _grouped(values, asking.shape)
        groups.append(mine)
        is_complete &= is_full or len(slots) < k
    return _Found(groups, is_complete, answer)


def _grouped(
    values: Sequence[Value | None], shape: tuple[int, int]
) -> tuple[list[_Members], bool]:
    """The best groups among ranked hits, and whether each of them is full."""
    count, size = shape
    groups: dict[tuple[bool, Value], _Members] = {}
    full = 0
    for rank, value in enumerate(values):
        if value is None:
            continue
        place = (isinstance(value, bool), value)  # 1 and true are two values
        if place not in groups:
            if len(groups) == count:
                continue
            groups[place] = _Members(value)
        members = groups[place]
        if len(members.ranks) < size:
            members.ranks.append(rank)
            full += len(members.ranks) == size
        if full == count:
            break
    return list(groups.values()), full == count


def _ranks(found: _Found) -> list[list[int]]:
    """The ranks of each query's members, group by group."""
    return [[rank for members in groups for rank in members.ranks] for groups in found.groups]


def _read(asking: _Asking, found: _Found) -> Sequence[Hits] | None:
    """The members with what is asked for; None if one has been replaced."""
    hits = only(found.answer.hits, _ranks(found))
    if isinstance(hits, HitRuns):
        check_bytes(hits.id_bytes, asking.query.answer_bytes)
    return read(asking.store, asking.name, hits, asking.query)


def _answer(found: _Found, hits: Sequence[Hits]) -> Grouped:
    """The members of each query as groups."""
    every = []
    for groups, mine in zip(found.groups, hits, strict=True):
        ends = [0, *accumulate(len(members.ranks) for members in groups)]
        every.append(
            tuple(
                Group(members.value, mine.only(range(start, end)))
                for members, start, end in zip(groups, ends, ends[1:], strict=False)
            )
        )
    is_exact = found.answer.exact and found.is_complete
    return Grouped(tuple(every), is_exact, found.answer)


def _path(key: str) -> Key:
    expression = parse(f"exists {key}")
    if not isinstance(expression, Exists):
        raise InvalidInput(f"expected a payload key to group by, got {key!r}")
    return expression.key


def _value(payload: bytes | None, path: Key) -> Value | None:
    """What a payload has under a key, if it is one that can be grouped by."""
    value: object = None if payload is None else json.loads(payload)
    for part in path:
        value = value.get(part) if isinstance(value, Mapping) else None
    return value if isinstance(value, str | int | float) else None
