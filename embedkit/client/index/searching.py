"""Searching collections, as plans of requests."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypedDict

import numpy as np
from google.protobuf.message import Message

from embedkit.client.index.reading import groups, hits, labelled
from embedkit.client.items import Items
from embedkit.client.messages import Call, Plan
from embedkit.errors import InvalidInput
from embedkit.types import DuplicatePage, Hit, HitGroup, Pair, RangeHits, SearchParams
from embedkit.wire.proto import index_pb2

__all__ = [
    "Options",
    "Wanted",
    "Window",
    "duplicates",
    "range_search",
    "search",
    "search_groups",
    "searches",
]

_QUERIES_AT_ONCE = 256


class Options(TypedDict, total=False):
    """What any search may be given beside the query and its main measure.

    Attributes:
        filter: Expression over payloads.
        with_payload: Whether hits carry their payload; they do unless this is False.
        with_vectors: Whether hits carry their vector.
        model_digest: Model that made the vectors; checked if given.
        params: How hard the index tries.
    """

    filter: str
    with_payload: bool
    with_vectors: bool
    model_digest: str
    params: SearchParams


@dataclass(frozen=True)
class Wanted:
    """The options of one search, checked; see ``Options``."""

    filter: str = ""
    with_payload: bool = True
    with_vectors: bool = False
    model_digest: str = ""
    params: SearchParams = field(default_factory=SearchParams)

    def fields(self) -> dict[str, Any]:
        """As fields of a request."""
        return {
            "filter": self.filter,
            "with_payload": self.with_payload,
            "with_vectors": self.with_vectors,
            "model_digest": self.model_digest,
            "params": _params(self.params),
        }


class Window(NamedTuple):
    """Which of the ranked hits to return."""

    k: int
    offset: int = 0
    threshold: float | None = None


def search(name: str, items: Items, window: Window, wanted: Wanted) -> Plan[list[list[Hit]]]:
    """Find neighbours of vectors or images.

    Raises:
        InvalidInput: If k, offset or threshold is not allowed.
    """
    _check_whole("k", window.k, 1)
    _check_whole("offset", window.offset, 0)
    if window.threshold is not None:
        _check_threshold(window.threshold)
    fields = {
        **wanted.fields(),
        "k": window.k,
        "offset": window.offset,
        "score_threshold": window.threshold,
    }

    def make(message: dict[str, Any]) -> Message:
        return index_pb2.SearchRequest(collection=name, **fields, **message)

    return Plan(
        _calls("IndexService.Search", make, items),
        lambda replies: [hits(r) for m in replies for r in m.results],
    )


def searches(
    name: str, batches: Iterable[Items], window: Window, wanted: Wanted
) -> Iterator[Plan[list[list[Hit]]]]:
    """Search for batches of queries, one plan each."""
    for items in batches:
        yield search(name, items, window, wanted)


def search_groups(
    name: str, items: Items, key: str, shape: tuple[int, int], wanted: Wanted
) -> Plan[list[list[HitGroup]]]:
    """Find the best groups of hits with one value of a payload key.

    Raises:
        InvalidInput: If the number of groups or of hits in each is not allowed.
    """
    count, size = shape
    _check_whole("k", count, 1)
    _check_whole("size", size, 1)
    if not key:
        raise InvalidInput("expected a payload key to group by, got an empty text")
    fields = {**wanted.fields(), "k": count, "group_by": key, "group_size": size}

    def make(message: dict[str, Any]) -> Message:
        return index_pb2.SearchRequest(collection=name, **fields, **message)

    return Plan(
        _calls("IndexService.Search", make, items),
        lambda replies: [groups(r) for m in replies for r in m.results],
    )


def range_search(
    name: str, items: Items, threshold: float, limit: int, wanted: Wanted
) -> Plan[list[RangeHits]]:
    """Find everything within a score.

    Raises:
        InvalidInput: If threshold or limit is not allowed.
    """
    _check_threshold(threshold)
    _check_whole("limit", limit, 1)
    fields = {**wanted.fields(), "score_threshold": threshold, "limit": limit}

    def make(message: dict[str, Any]) -> Message:
        return index_pb2.RangeSearchRequest(collection=name, **fields, **message)

    return Plan(
        _calls("IndexService.RangeSearch", make, items),
        lambda replies: [
            RangeHits(hits(found), cut)
            for m in replies
            for found, cut in zip(m.results, m.cut, strict=True)
        ],
    )


class PairPage(NamedTuple):
    """Pairs, and where the next ones are; 0 after the last."""

    page: DuplicatePage
    next_after: int


def duplicates(
    name: str, threshold: float, after: int, neighbours: int, wanted: Wanted
) -> Plan[PairPage]:
    """Find the next pairs within a score.

    Raises:
        InvalidInput: If threshold or neighbours is not allowed.
    """
    _check_threshold(threshold)
    _check_whole("neighbours", neighbours, 1)
    request = index_pb2.DuplicatesRequest(
        collection=name,
        score_threshold=threshold,
        after=after,
        neighbours=neighbours,
        filter=wanted.filter,
        params=_params(wanted.params),
    )

    def read(replies: Sequence[Message]) -> PairPage:
        (reply,) = replies
        found = [Pair(p.first, p.second, p.score) for p in reply.pairs]
        return PairPage(DuplicatePage(found, reply.exact, reply.cut), reply.next_after)

    return Plan([Call("IndexService.Duplicates", request)], read)


def _calls(
    method: str, make: Callable[[dict[str, Message]], Message], items: Items
) -> Iterator[Call]:
    for start, count, message in items.cut(_QUERIES_AT_ONCE):
        yield labelled(method, make(message), items, start, count)


def _params(params: SearchParams) -> index_pb2.SearchParams:
    for name in ("nprobe", "ef"):
        value = getattr(params, name)
        if value is not None:
            _check_whole(name, value, 1)
    return index_pb2.SearchParams(
        exact=params.exact,
        recall_target=params.recall_target,
        nprobe=params.nprobe,
        ef=params.ef,
    )


def _check_whole(name: str, value: int, least: int) -> None:
    if not isinstance(value, int | np.integer) or not least <= value < 2**32:
        raise InvalidInput(
            f"expected {name} as a whole number of at least {least}, got {value!r}"
        )


def _check_threshold(threshold: float) -> None:
    if not isinstance(threshold, int | float | np.number) or math.isnan(threshold):
        raise InvalidInput(f"expected a threshold that is a number, got {threshold}")
