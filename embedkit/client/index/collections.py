"""Making, describing and dropping collections, as plans of requests."""

import time
from collections.abc import Iterator
from dataclasses import asdict, fields

import numpy as np

from embedkit.client.messages import Call, Plan
from embedkit.errors import DeadlineExceeded, InvalidInput
from embedkit.types import Collection, CollectionLimits, IndexState, Metric, Verification
from embedkit.wire.proto import index_pb2

__all__ = ["collections", "compact", "create", "describe", "drop", "pauses", "verify"]

# Between two looks at an index that is being built.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.01, 0.5

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


def create(
    name: str,
    dim: int,
    model: str,
    metric: Metric,
    kind: str,
    storage: str,
    limits: CollectionLimits | None,
) -> Plan[Collection]:
    """Make a collection.

    Raises:
        InvalidInput: If the metric is unknown, or the dimension or a limit is negative or
            beyond the message.
    """
    if not isinstance(dim, int | np.integer) or not 0 <= dim < 1 << 32:
        raise InvalidInput(f"expected a dimension from 1 to {(1 << 32) - 1}, got {dim}")
    limits = limits or CollectionLimits()
    for noun, value, bits in (
        ("vectors", limits.vectors, 63),
        ("payload bytes", limits.payload_bytes, 32),
    ):
        if not 0 <= value < 1 << bits:
            raise InvalidInput(
                f"expected a limit of {noun} from 0 to 2**{bits} - 1, got {value}"
            )
    if metric not in _CODES:
        raise InvalidInput(f"expected a metric of {list(_CODES)}, got {metric!r}")
    request = index_pb2.CreateCollectionRequest(
        name=name,
        dim=dim,
        model=model,
        metric=_CODES[metric],
        kind=kind,
        storage=storage,
        limits=index_pb2.CollectionLimits(**asdict(limits)),
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


def verify(name: str) -> Plan[Verification]:
    """Compare a collection's index with its records."""
    return Plan(
        [Call("IndexService.Verify", index_pb2.VerifyRequest(name=name))],
        lambda r: Verification(r[0].sequence, r[0].vectors, tuple(r[0].problems)),
    )


def pauses(name: str, timeout_s: float | None) -> Iterator[float]:
    """Seconds to wait between looks at an index that is being built.

    Raises:
        DeadlineExceeded: Once all of them together have taken ``timeout_s``.
    """
    end = None if timeout_s is None else time.monotonic() + timeout_s
    pause = _FIRST_PAUSE_S
    while True:
        left = _LONGEST_PAUSE_S if end is None else end - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded(
                f"expected the index of {name!r} to be built within {timeout_s} s; it goes on, "
                "and searches are answered meanwhile"
            )
        yield min(pause, left)
        pause = min(2 * pause, _LONGEST_PAUSE_S)


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
        storage=message.storage,
        limits=CollectionLimits(message.limits.vectors, message.limits.payload_bytes),
        index=_state(message.index) if message.HasField("index") else None,
    )


def _state(message: index_pb2.IndexState) -> IndexState:
    return IndexState(
        **{field.name: getattr(message, field.name) for field in fields(IndexState)}
    )
