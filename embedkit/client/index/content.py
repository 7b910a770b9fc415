"""Writing and reading records, as plans of requests."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from embedkit.client.images import Room
from embedkit.client.index.reading import labelled, record
from embedkit.client.items import Batch, Items
from embedkit.client.messages import Call, Plan
from embedkit.errors import InvalidInput
from embedkit.types import Record
from embedkit.wire.proto import index_pb2

__all__ = [
    "RecordPage",
    "checked_ids",
    "delete",
    "get",
    "sample",
    "scroll",
    "steps",
    "upsert",
    "upserts",
]

Payload = Mapping[str, object]
# Vectors are small: more of them share a message, and with it a commit, than images would.
_VECTORS_AT_ONCE = 4096
_IDS_AT_ONCE = 4096


def upsert(
    name: str,
    ids: Sequence[str],
    items: Items,
    payloads: Sequence[Payload | None] | None,
    model_digest: str,
    if_sequence: int | None = None,
) -> Plan[int]:
    """Store vectors or images under ids.

    Raises:
        InvalidInput: If ids, payloads and items do not match, or an id is given twice.
    """
    if if_sequence is not None and not 0 <= if_sequence < 1 << 64:
        raise InvalidInput(f"expected if_sequence of at least 0, got {if_sequence}")
    ids = checked_ids(ids)
    if len(set(ids)) < len(ids):
        ((repeated, times),) = Counter(ids).most_common(1)
        raise InvalidInput(f"expected each id once, got {repeated!r} {times} times")
    if items.count != len(ids):
        raise InvalidInput(f"expected {len(ids)} {items.noun}, one per id, got {items.count}")
    texts = None if payloads is None else _payload_texts(payloads, len(ids))
    # Four bytes for any character, and a few of framing.
    beside_bytes = 16 + 4 * max(map(len, ids), default=0) + max(map(len, texts or [b""]))

    def calls() -> Iterator[Call]:
        for start, count, message in items.cut(_VECTORS_AT_ONCE, beside_bytes):
            part = slice(start, start + count)
            request = index_pb2.UpsertRequest(
                collection=name,
                ids=ids[part],
                payloads=None if texts is None else texts[part],
                model_digest=model_digest,
                if_sequence=if_sequence,
                **message,
            )
            yield labelled("IndexService.Upsert", request, items, start, count)

    return Plan(calls(), lambda replies: max((int(r.sequence) for r in replies), default=0))


def upserts(
    name: str, batches: Iterable[Batch], room: Room, model_digest: str
) -> Iterator[Plan[int]]:
    """Store batches, one plan each."""
    for batch in batches:
        if not isinstance(batch, Batch):
            raise InvalidInput(f"expected an embedkit.Batch, got {type(batch).__name__}")
        items = Items(batch.vectors, batch.images, room)
        yield upsert(name, batch.ids, items, batch.payloads, model_digest)


def delete(name: str, ids: Sequence[str], query_filter: str = "") -> Plan[int]:
    """Remove ids, or what a filter holds for; the result is how many were there.

    Raises:
        InvalidInput: If there are both.
    """
    if query_filter:
        if len(ids):
            raise InvalidInput(
                f"expected ids or a filter, got {len(ids)} ids and {query_filter!r}"
            )
        request = index_pb2.DeleteRequest(collection=name, filter=query_filter)
        return Plan([Call("IndexService.Delete", request)], lambda r: int(r[0].deleted))
    return Plan(
        (
            Call("IndexService.Delete", index_pb2.DeleteRequest(collection=name, ids=part))
            for part in _cut_ids(list(dict.fromkeys(checked_ids(ids))))
        ),
        lambda replies: sum(int(r.deleted) for r in replies),
    )


def steps(ids: Sequence[str]) -> Iterator[int]:
    """How many ids to look up in one request, and then, where the answer is too large."""
    step = min(max(1, len(ids)), _IDS_AT_ONCE)
    while step:
        yield step
        step //= 2


def get(
    name: str, ids: list[str], step: int, *, with_vectors: bool
) -> Plan[list[Record | None]]:
    """Look up ids that were checked, ``step`` in one request."""
    return Plan(
        (
            Call(
                "IndexService.Get",
                index_pb2.GetRequest(collection=name, ids=part, with_vectors=with_vectors),
            )
            for part in _cut_ids(ids, step)
        ),
        lambda replies: [record(m) for r in replies for m in r.records],
    )


class RecordPage(NamedTuple):
    """Records, and where the next ones are; 0 after the last."""

    records: list[Record]
    next_after: int


def scroll(
    name: str, after: int, limit: int, query_filter: str, *, with_vectors: bool
) -> Plan[RecordPage]:
    """Read a page of records.

    Raises:
        InvalidInput: If the number of records is none that fits.
    """
    if not 1 <= limit < 1 << 32:
        raise InvalidInput(f"expected a page of 1 to {(1 << 32) - 1} records, got {limit}")
    request = index_pb2.ScrollRequest(
        collection=name,
        after=after,
        limit=limit,
        filter=query_filter,
        with_payload=True,
        with_vectors=with_vectors,
    )
    return Plan(
        [Call("IndexService.Scroll", request)],
        lambda r: RecordPage(_records(r[0].records), r[0].next_after),
    )


def sample(
    name: str, count: int, seed: int, query_filter: str, *, with_vectors: bool
) -> Plan[list[Record]]:
    """Read records drawn at random.

    Raises:
        InvalidInput: If count or seed is no whole number that fits.
    """
    if not 0 <= seed < 1 << 64 or not 0 <= count < 1 << 32:
        raise InvalidInput(f"expected a count and a seed of at least 0, got {count} and {seed}")
    request = index_pb2.SampleRequest(
        collection=name,
        count=count,
        seed=seed,
        filter=query_filter,
        with_payload=True,
        with_vectors=with_vectors,
    )
    return Plan([Call("IndexService.Sample", request)], lambda r: _records(r[0].records))


def _records(messages: Iterable[index_pb2.Record]) -> list[Record]:
    return [found for m in messages if (found := record(m)) is not None]


def checked_ids(ids: Sequence[str]) -> list[str]:
    """The ids, each a text that a message can hold.

    Raises:
        InvalidInput: If one is none.
    """
    if isinstance(ids, str):
        raise InvalidInput(f"expected a list of ids, got the text {ids!r}; write [{ids!r}]")
    checked = list(ids)
    wrong = [i for i in checked if not isinstance(i, str)]
    if wrong:
        raise InvalidInput(f"expected ids as text, got {wrong[0]!r}; write str({wrong[0]!r})")
    try:
        "".join(checked).encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"expected ids that UTF-8 can hold, got {error}") from error
    return checked


def _cut_ids(ids: list[str], step: int = _IDS_AT_ONCE) -> Iterator[list[str]]:
    for start in range(0, len(ids), step):
        yield ids[start : start + step]


def _payload_texts(payloads: Sequence[Payload | None], count: int) -> list[bytes]:
    if len(payloads) != count:
        raise InvalidInput(f"expected {count} payloads, one per id, got {len(payloads)}")
    return [_payload_text(i, payload) for i, payload in enumerate(payloads)]


def _payload_text(index: int, payload: Payload | None) -> bytes:
    if payload is None:
        return b""
    try:
        if not isinstance(payload, Mapping):
            raise TypeError(f"{type(payload).__name__} is no mapping")
        return json.dumps(
            dict(payload), ensure_ascii=False, allow_nan=False, separators=(",", ":")
        ).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"expected payload {index} as a JSON object, got {error}") from error
