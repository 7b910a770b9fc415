"""The best groups of hits that have one value of a payload key in common."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from embedkit.errors import InvalidInput, MessageTooLarge
from embedkit.retrieve.filter.expression import Exists, Key
from embedkit.retrieve.filter.grammar import parse
from embedkit.retrieve.store import Answer, Hits, Query, VectorStore

__all__ = ["Group", "Grouped", "grouped"]

# Candidates beyond those that the answer itself needs, before members may be missing.
_SPARE = 16
_LEAST = 1024
_MOST, _MOST_HITS = 10_000, 1_000_000
_GROWTH = 4

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
    k = min(most, 2 * wanted)
    found = _asked(store, name, replace(query, k=k), path, (query.k, size))
    while not found.is_complete and k < most:
        k = min(most, k * _GROWTH)
        # More payloads than fit into an answer: what there is so far must do.
        with suppress(MessageTooLarge):
            found = _asked(store, name, replace(query, k=k), path, (query.k, size))
            continue
        break
    return Grouped(
        tuple(
            tuple(_group(members, hits, query.with_payload) for members in groups)
            for groups, hits in zip(found.groups, found.answer.hits, strict=True)
        ),
        found.answer.exact and found.is_complete,
        found.answer,
    )


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


def _asked(
    store: VectorStore, name: str, query: Query, path: Key, shape: tuple[int, int]
) -> _Found:
    answer = store.search(name, replace(query, with_payload=True))
    groups, is_complete = [], True
    for hits in answer.hits:
        mine, is_full = _grouped(hits.payloads or (), path, shape)
        groups.append(mine)
        is_complete &= is_full or len(hits) < query.k
    return _Found(groups, is_complete, answer)


def _grouped(
    payloads: Sequence[bytes | None], path: Key, shape: tuple[int, int]
) -> tuple[list[_Members], bool]:
    """The best groups among ranked hits, and whether each of them is full."""
    count, size = shape
    groups: dict[tuple[bool, Value], _Members] = {}
    full = 0
    for rank, payload in enumerate(payloads):
        value = _value(payload, path)
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


def _group(members: _Members, hits: Hits, with_payload: bool) -> Group:
    payloads = hits.payloads if with_payload else None
    ranks = members.ranks
    return Group(
        members.value,
        Hits(
            [hits.ids[rank] for rank in ranks],
            hits.scores[ranks],
            hits.slots[ranks],
            None if payloads is None else [payloads[rank] for rank in ranks],
            None if hits.vectors is None else hits.vectors[ranks],
        ),
    )


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
