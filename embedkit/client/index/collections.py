"""Making, describing and dropping collections, as plans of requests."""

from embedkit.client.messages import Call, Plan
from embedkit.errors import InvalidInput
from embedkit.types import Collection, Metric, Verification
from embedkit.wire.proto import index_pb2

__all__ = ["collections", "compact", "create", "describe", "drop", "verify"]

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
    name: str, dim: int, model: str, metric: Metric, kind: str, storage: str
) -> Plan[Collection]:
    """Make a collection.

    Raises:
        InvalidInput: If the metric is unknown.
    """
    if metric not in _CODES:
        raise InvalidInput(f"expected a metric of {list(_CODES)}, got {metric!r}")
    request = index_pb2.CreateCollectionRequest(
        name=name, dim=dim, model=model, metric=_CODES[metric], kind=kind, storage=storage
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
    )
