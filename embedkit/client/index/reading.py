"""What messages of the index service mean, and how parts of a request are named."""

import json
from collections.abc import Iterable
from itertools import repeat

import numpy as np
import numpy.typing as npt
from google.protobuf.message import Message

from embedkit.client.items import Items
from embedkit.client.messages import Call
from embedkit.types import Hit, HitGroup, Record
from embedkit.wire.codec import decode_tensor
from embedkit.wire.proto import index_pb2

__all__ = ["groups", "hits", "labelled", "record"]


def labelled(method: str, request: Message, items: Items, start: int, count: int) -> Call:
    """Name the part that a request is, for error messages."""
    whole = count == items.count
    label = "" if whole else f"{items.noun} {start} to {start + count - 1}"
    images = count if items.noun == "images" else 0
    return Call(method, request, images=images, label=label)


def record(message: index_pb2.Record) -> Record | None:
    """The record of a message; None if the id is not there."""
    if not message.found:
        return None
    return Record(
        id=message.id,
        vector=_vector(message),
        payload=_payload(message.payload),
        sequence=message.sequence,
    )


def hits(message: index_pb2.Hits) -> list[Hit]:
    """The hits of one query."""
    payloads = map(_payload, message.payloads or [b""] * len(message.ids))
    vectors: Iterable[npt.NDArray[np.float32] | None] = repeat(None)
    if message.HasField("vectors"):
        vectors = np.array(decode_tensor(message.vectors, axes="n d", dtypes=("float32",)))
    return list(map(Hit, message.ids, message.scores, payloads, vectors))


def groups(message: index_pb2.Hits) -> list[HitGroup]:
    """The groups of one query."""
    found, start, members = [], 0, hits(message)
    for group in message.groups:
        end = start + group.hits
        found.append(HitGroup(json.loads(group.value), members[start:end]))
        start = end
    return found


def _payload(text: bytes) -> dict[str, object] | None:
    return json.loads(text) if text else None


def _vector(message: index_pb2.Record) -> npt.NDArray[np.float32] | None:
    """A copy of its own, or None if there is no vector."""
    if not message.HasField("vector"):
        return None
    return np.array(decode_tensor(message.vector, axes="d", dtypes=("float32",)), np.float32)
