"""Collections of vectors on a server, as plans of requests."""

import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from google.protobuf.message import Message

from embedkit.client.items import Items
from embedkit.client.messages import Call, Plan
from embedkit.errors import InvalidInput
from embedkit.types import Collection, Hit, Metric, Record
from embedkit.wire.codec import decode_tensor
from embedkit.wire.proto import index_pb2

__all__ = [
    "collections",
    "compact",
    "create",
    "delete",
    "describe",
    "drop",
    "get",
    "search",
    "upsert",
]

Payload = Mapping[str, object]
_CODES: dict[str, index_pb2.Metric] = {
    "cosine": index_pb2.COSINE,
    "inner_product": index_pb2.INNER_PRODUCT,
    "l2": index_pb2.L2,
}
_METRICS: dict[int, Metric] = {
    index_pb2.COSINE: "cosine",
    index_pb2.INNER_PRODUCT: "inner_product",
    index_pb2.L2: "l2",
}
# Vectors are small: more of them share a message, and with it a commit, than images would.
_VECTORS_AT_ONCE = 4096
_QUERIES_AT_ONCE = 256
_IDS_AT_ONCE = 4096


def create(name: str, dim: int, model: str, metric: Metric, kind: str) -> Plan[Collection]:
    """Make a collection.

    Raises:
        InvalidInput: If the metric is unknown.
    """
    if metric not in _CODES:
        raise InvalidInput(f"expected a metric of {list(_CODES)}, got {metric!r}")
    request = index_pb2.CreateCollectionRequest(
        name=name, dim=dim, model=model, metric=_CODES[metric], kind=kind
    )
    return Plan([Call("IndexService.CreateCollection", request)], lambda r: _collection(r[0]))


def drop(name: str) -> Plan[None]:
    """Remove a collection."""
    request = index_pb2.DropCollectionRequest(name=name)
    return Plan([Call("IndexService.DropCollection", request)], lambda _: None)


def collections() -> Plan[list[Collection]]:
    """List the collections."""
    call = Call("IndexService.ListCollections", index_pb2.ListCollectionsRequest())
    return Plan([call], lambda r: [_collection(c) for c in r[0].collections])


def describe(name: str) -> Plan[Collection]:
    """Describe a collection."""
    request = index_pb2.DescribeRequest(name=name)
    return Plan([Call("IndexService.Describe", request)], lambda r: _collection(r[0]))


def compact(name: str) -> Plan[int]:
    """Give a collection's freed space back."""
    request = index_pb2.CompactRequest(name=name)
    return Plan(
        [Call("IndexService.Compact", request)], lambda replies: int(replies[0].reclaimed_bytes)
    )


def upsert(
    name: str,
    ids: Sequence[str],
    items: Items,
    payloads: Sequence[Payload | None] | None,
    model_digest: str,
) -> Plan[int]:
    """Store vectors or images under ids.

    Raises:
        InvalidInput: If ids, payloads and items do not match, or an id is given twice.
    """
    ids = _checked_ids(ids)
    if len(set(ids)) < len(ids):
        repeated = next(i for n, i in enumerate(ids) if i in ids[:n])
        raise InvalidInput(f"expected each id once, got {repeated!r} twice")
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
                **message,
            )
            yield _labelled("IndexService.Upsert", request, items, start, count)

    return Plan(calls(), lambda replies: max((int(r.sequence) for r in replies), default=0))


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
            for part in _cut_ids(list(dict.fromkeys(_checked_ids(ids))))
        ),
        lambda replies: sum(int(r.deleted) for r in replies),
    )


def get(name: str, ids: Sequence[str], *, with_vectors: bool) -> Plan[list[Record | None]]:
    """Look ids up."""
    return Plan(
        (
            Call(
                "IndexService.Get",
                index_pb2.GetRequest(collection=name, ids=part, with_vectors=with_vectors),
            )
            for part in _cut_ids(_checked_ids(ids))
        ),
        lambda replies: [_record(m) for r in replies for m in r.records],
    )


def search(
    name: str, items: Items, k: int, query_filter: str, model_digest: str, *, payload: bool
) -> Plan[list[list[Hit]]]:
    """Find neighbours of vectors or images.

    Raises:
        InvalidInput: If k is not a positive integer.
    """
    if not isinstance(k, int | np.integer) or not 0 < k < 2**32:
        raise InvalidInput(f"expected k as a whole number of at least 1, got {k!r}")

    def calls() -> Iterator[Call]:
        for start, count, message in items.cut(_QUERIES_AT_ONCE):
            request = index_pb2.SearchRequest(
                collection=name,
                k=k,
                filter=query_filter,
                with_payload=payload,
                model_digest=model_digest,
                **message,
            )
            yield _labelled("IndexService.Search", request, items, start, count)

    return Plan(
        calls(), lambda replies: [[_hit(h) for h in r.hits] for m in replies for r in m.results]
    )


def _labelled(method: str, request: Message, items: Items, start: int, count: int) -> Call:
    whole = count == items.count
    label = "" if whole else f"{items.noun} {start} to {start + count - 1}"
    images = count if items.noun == "images" else 0
    return Call(method, request, images=images, label=label)


def _checked_ids(ids: Sequence[str]) -> list[str]:
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


def _cut_ids(ids: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), _IDS_AT_ONCE):
        yield ids[start : start + _IDS_AT_ONCE]


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
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"expected payload {index} as a JSON object, got {error}") from error


def _collection(message: index_pb2.Collection) -> Collection:
    return Collection(
        name=message.name,
        dim=message.dim,
        metric=_METRICS[message.metric],
        kind=message.kind,
        model=message.model,
        model_digest=message.model_digest,
        count=message.count,
        sequence=message.sequence,
    )


def _record(message: index_pb2.Record) -> Record | None:
    if not message.found:
        return None
    vector = None
    if message.HasField("vector"):
        vector = np.array(decode_tensor(message.vector, axes="d", dtypes=("float32",)))
    return Record(
        id=message.id,
        vector=None if vector is None else vector.astype(np.float32, copy=False),
        payload=_read_payload(message.payload),
        sequence=message.sequence,
    )


def _hit(message: index_pb2.Hit) -> Hit:
    return Hit(message.id, message.score, _read_payload(message.payload))


def _read_payload(text: bytes) -> dict[str, object] | None:
    return json.loads(text) if text else None
