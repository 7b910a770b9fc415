"""Making, dropping and describing collections."""

from dataclasses import asdict, replace

import grpc
import numpy as np

from embedkit.errors import InvalidInput
from embedkit.serve.services.failure import answering
from embedkit.serve.services.index.parts import Calls, patience_of
from embedkit.types import Collection, CollectionLimits, IndexState, Metric
from embedkit.wire.proto import index_pb2

__all__ = ["CollectionCalls"]

_CODES: dict[Metric, index_pb2.Metric] = {
    "cosine": index_pb2.COSINE,
    "inner_product": index_pb2.INNER_PRODUCT,
    "l2": index_pb2.L2,
}
_METRICS: dict[int, Metric] = {
    index_pb2.METRIC_UNSPECIFIED: "cosine",
    **{code: name for name, code in _CODES.items()},
}


class CollectionCalls(Calls):
    """Calls that concern a collection as a whole."""

    @answering
    def CreateCollection(
        self, request: index_pb2.CreateCollectionRequest, context: grpc.ServicerContext
    ) -> index_pb2.Collection:
        """Make a collection; a model gives its dimension and digest."""
        if request.metric not in _METRICS:
            raise InvalidInput(f"expected a metric of {list(_CODES)}, got {request.metric}")
        wanted = Collection(
            name=request.name,
            dim=request.dim,
            metric=_METRICS[request.metric],
            kind=request.kind or "auto",
            model=request.model,
            storage=request.storage or "float32",
            limits=CollectionLimits(request.limits.vectors, request.limits.payload_bytes),
        )
        if request.model:
            dim, digest = self._describe_model(request.model, context)
            if request.dim not in (0, dim):
                raise InvalidInput(
                    f"expected the dimension {dim} of model {request.model!r} or none, "
                    f"got {request.dim}"
                )
            wanted = replace(wanted, dim=dim, model_digest=digest)
        return _message(self._store.create(wanted))

    @answering
    def DropCollection(
        self, request: index_pb2.DropCollectionRequest, context: grpc.ServicerContext
    ) -> index_pb2.DropCollectionResponse:
        """Remove a collection."""
        self._store.drop(request.name)
        return index_pb2.DropCollectionResponse()

    @answering
    def ListCollections(
        self, request: index_pb2.ListCollectionsRequest, context: grpc.ServicerContext
    ) -> index_pb2.ListCollectionsResponse:
        """List every collection by name."""
        return index_pb2.ListCollectionsResponse(
            collections=[_message(c) for c in self._store.collections()]
        )

    @answering
    def Describe(
        self, request: index_pb2.DescribeRequest, context: grpc.ServicerContext
    ) -> index_pb2.Collection:
        """Describe one collection and its index."""
        return _message(self._store.inspect(request.name))

    @answering
    def Compact(
        self, request: index_pb2.CompactRequest, context: grpc.ServicerContext
    ) -> index_pb2.CompactResponse:
        """Give freed space back."""
        reclaimed = self._store.compact(request.name, patience=patience_of(context))
        return index_pb2.CompactResponse(reclaimed_bytes=reclaimed)

    @answering
    def Verify(
        self, request: index_pb2.VerifyRequest, context: grpc.ServicerContext
    ) -> index_pb2.VerifyResponse:
        """Compare a collection's index with its rows."""
        found = self._store.verify(request.name, patience=patience_of(context))
        return index_pb2.VerifyResponse(
            sequence=found.sequence, vectors=found.vectors, problems=found.problems
        )

    def _describe_model(self, model: str, context: grpc.ServicerContext) -> tuple[int, str]:
        """Dimension and digest of a model, from the embedding of a black image."""
        black = np.zeros((1, 8, 8, 1), np.uint8)
        vectors, digest = self._parts.embed(model, black, patience_of(context).left_s)
        return vectors.shape[1], digest


def _message(collection: Collection) -> index_pb2.Collection:
    return index_pb2.Collection(
        name=collection.name,
        dim=collection.dim,
        metric=_CODES[collection.metric],
        kind=collection.kind,
        model=collection.model,
        model_digest=collection.model_digest,
        count=collection.count,
        sequence=collection.sequence,
        storage=collection.storage,
        limits=index_pb2.CollectionLimits(**asdict(collection.limits)),
        index=_state(collection.index),
    )


def _state(state: IndexState | None) -> index_pb2.IndexState | None:
    return None if state is None else index_pb2.IndexState(**asdict(state))
