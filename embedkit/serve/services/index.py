"""IndexService: collections of vectors, filled and searched by vector or by image."""

from dataclasses import replace
from typing import Protocol

import grpc
import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput, ModelMismatch
from embedkit.retrieve.store import Answer, Query, Row, VectorStore
from embedkit.serve.services.failure import answering
from embedkit.types import Collection, Embeddings, EncodedImages, Images, Metric
from embedkit.wire.codec import decode_images, decode_tensor, encode_tensor
from embedkit.wire.proto import index_pb2, index_pb2_grpc, tensor_pb2

__all__ = ["EmbedCall", "IndexServicer", "add_index_service"]

_CODES: dict[Metric, index_pb2.Metric] = {
    "cosine": index_pb2.COSINE,
    "inner_product": index_pb2.INNER_PRODUCT,
    "l2": index_pb2.L2,
}
_METRICS: dict[int, Metric] = {
    index_pb2.METRIC_UNSPECIFIED: "cosine",
    **{code: name for name, code in _CODES.items()},
}
# gRPC answers a call without a deadline with some centuries.
_NO_DEADLINE_S = 1e8


class EmbedCall(Protocol):
    """How the service turns images into vectors."""

    def __call__(
        self, model: str, images: Images | EncodedImages, timeout_s: float | None
    ) -> tuple[Embeddings, str]:
        """Return the embeddings and the digest of the model that made them.

        Args:
            model: Name; empty where the server has one model.
            images: At least one.
            timeout_s: Seconds until nobody waits for the answer, or None.

        Raises:
            BadImage: For the first image that cannot be decoded.
            NotFound: If there is no such model.
        """
        ...


def add_index_service(server: grpc.Server, store: VectorStore, embed: EmbedCall) -> None:
    """Register IndexService on a server that has not started."""
    servicer = IndexServicer(store, embed)
    index_pb2_grpc.add_IndexServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]


class IndexServicer(index_pb2_grpc.IndexServiceServicer):
    """Answers every call of IndexService from a store.

    Args:
        store: Holds the collections.
        embed: Embeds the images of requests that carry images.
    """

    def __init__(self, store: VectorStore, embed: EmbedCall) -> None:
        self._store = store
        self._embed = embed

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
        )
        if request.model:
            dim, digest = self._describe_model(request.model, context)
            if request.dim not in (0, dim):
                raise InvalidInput(
                    f"expected the dimension {dim} of model {request.model!r} or none, "
                    f"got {request.dim}"
                )
            wanted = replace(wanted, dim=dim, model_digest=digest)
        return _collection(self._store.create(wanted))

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
            collections=[_collection(c) for c in self._store.collections()]
        )

    @answering
    def Describe(
        self, request: index_pb2.DescribeRequest, context: grpc.ServicerContext
    ) -> index_pb2.Collection:
        """Describe one collection."""
        return _collection(self._store.describe(request.name))

    @answering
    def Upsert(
        self, request: index_pb2.UpsertRequest, context: grpc.ServicerContext
    ) -> index_pb2.UpsertResponse:
        """Store vectors or embedded images; answers after the commit."""
        collection = self._store.describe(request.collection)
        vectors, digest = self._vectors(request, collection, context)
        after = self._store.upsert(
            request.collection,
            list(request.ids),
            vectors,
            list(request.payloads) or None,
            model_digest=digest,
        )
        return index_pb2.UpsertResponse(
            sequence=after.sequence, model_digest=after.model_digest
        )

    @answering
    def Delete(
        self, request: index_pb2.DeleteRequest, context: grpc.ServicerContext
    ) -> index_pb2.DeleteResponse:
        """Remove ids, skipping unknown ones, or everything that a filter holds for."""
        deleted, after = self._store.delete(
            request.collection, list(request.ids), filter=request.filter
        )
        return index_pb2.DeleteResponse(deleted=deleted, sequence=after.sequence)

    @answering
    def Get(
        self, request: index_pb2.GetRequest, context: grpc.ServicerContext
    ) -> index_pb2.GetResponse:
        """Look ids up, in order."""
        ids = list(request.ids)
        rows = self._store.get(request.collection, ids, with_vectors=request.with_vectors)
        return index_pb2.GetResponse(
            records=[_record(i, row) for i, row in zip(ids, rows, strict=True)]
        )

    @answering
    def Search(
        self, request: index_pb2.SearchRequest, context: grpc.ServicerContext
    ) -> index_pb2.SearchResponse:
        """Find the neighbours of vectors or images."""
        collection = self._store.describe(request.collection)
        vectors, digest = self._vectors(request, collection, context)
        answer = self._store.search(
            request.collection,
            Query(
                vectors,
                k=request.k,
                filter=request.filter,
                model_digest=digest,
                with_payload=request.with_payload,
                with_vectors=request.with_vectors,
            ),
        )
        return _search_response(answer)

    @answering
    def Compact(
        self, request: index_pb2.CompactRequest, context: grpc.ServicerContext
    ) -> index_pb2.CompactResponse:
        """Give freed space back."""
        return index_pb2.CompactResponse(reclaimed_bytes=self._store.compact(request.name))

    def _vectors(
        self,
        request: index_pb2.UpsertRequest | index_pb2.SearchRequest,
        collection: Collection,
        context: grpc.ServicerContext,
    ) -> tuple[Embeddings, str]:
        """The request's vectors, embedded if it has images, and the digest of their model."""
        is_upsert = isinstance(request, index_pb2.UpsertRequest)
        kind = request.WhichOneof("source" if is_upsert else "query")
        if kind is None:
            raise InvalidInput("expected vectors, encoded images or pixels, got none of them")
        if kind == "vectors":
            vectors = decode_tensor(request.vectors, axes="n d", dtypes=("float32",))
            return np.asarray(vectors, np.float32), request.model_digest
        images: Images | EncodedImages = (
            list(request.encoded.data) if kind == "encoded" else decode_images(request.pixels)
        )
        if is_upsert and len(images) != len(request.ids):
            raise InvalidInput(
                f"expected one image for each of {len(request.ids)} ids, got {len(images)}"
            )
        if not len(images):
            return np.empty((0, collection.dim), np.float32), request.model_digest
        vectors, digest = self._embed(collection.model, images, _time_left(context))
        if request.model_digest and request.model_digest != digest:
            raise ModelMismatch(
                f"expected the model {request.model_digest}, got {digest} on this server"
            )
        return vectors, digest

    def _describe_model(self, model: str, context: grpc.ServicerContext) -> tuple[int, str]:
        """Dimension and digest of a model, from the embedding of a black image."""
        black = np.zeros((1, 8, 8, 1), np.uint8)
        vectors, digest = self._embed(model, black, _time_left(context))
        return vectors.shape[1], digest


def _time_left(context: grpc.ServicerContext) -> float | None:
    left: float | None = context.time_remaining()
    return None if left is None or left > _NO_DEADLINE_S else left


def _collection(collection: Collection) -> index_pb2.Collection:
    return index_pb2.Collection(
        name=collection.name,
        dim=collection.dim,
        metric=_CODES[collection.metric],
        kind=collection.kind,
        model=collection.model,
        model_digest=collection.model_digest,
        count=collection.count,
        sequence=collection.sequence,
    )


def _record(id_: str, row: Row | None) -> index_pb2.Record:
    if row is None:
        return index_pb2.Record(found=False, id=id_)
    return index_pb2.Record(
        found=True,
        id=id_,
        vector=_tensor(row.vector),
        payload=row.payload or b"",
        sequence=row.sequence,
    )


def _search_response(answer: Answer) -> index_pb2.SearchResponse:
    return index_pb2.SearchResponse(
        results=[
            index_pb2.Hits(
                hits=[
                    index_pb2.Hit(
                        id=row.id,
                        score=score,
                        payload=row.payload or b"",
                        vector=_tensor(row.vector),
                    )
                    for row, score in zip(rows, scores.tolist(), strict=True)
                ]
            )
            for rows, scores in zip(answer.rows, answer.scores, strict=True)
        ],
        exact=answer.exact,
        model_digest=answer.collection.model_digest,
    )


def _tensor(vector: npt.NDArray[np.float32] | None) -> tensor_pb2.Tensor | None:
    return None if vector is None else encode_tensor(vector)
