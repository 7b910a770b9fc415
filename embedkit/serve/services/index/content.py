"""Writing and reading what is in a collection."""

import grpc

from embedkit.errors import InvalidInput
from embedkit.retrieve.patience import Patience
from embedkit.retrieve.store import Scan
from embedkit.serve.services.failure import answering
from embedkit.serve.services.index.messages import check_rows, record
from embedkit.serve.services.index.parts import Calls, patience_of, vectors_of
from embedkit.wire.proto import index_pb2

__all__ = ["ContentCalls"]

_PAGE_ROWS = 1000
_SAMPLE_ROWS = 100_000


class ContentCalls(Calls):
    """Calls that write and read records."""

    @answering
    def Upsert(
        self, request: index_pb2.UpsertRequest, context: grpc.ServicerContext
    ) -> index_pb2.UpsertResponse:
        """Store vectors or embedded images; answers after the commit."""
        return self.upserted(request, patience_of(context))

    def upserted(
        self, request: index_pb2.UpsertRequest, patience: Patience
    ) -> index_pb2.UpsertResponse:
        """Store vectors or embedded images and return after the commit."""
        collection = self._store.describe(request.collection)
        vectors, digest = vectors_of(self._parts, request, collection, patience)
        after = self._store.upsert(
            request.collection,
            list(request.ids),
            vectors,
            list(request.payloads) or None,
            model_digest=digest,
            if_sequence=request.if_sequence if request.HasField("if_sequence") else None,
            patience=patience,
        )
        return index_pb2.UpsertResponse(
            sequence=after.sequence,
            model_digest=after.model_digest,
            request_id=request.request_id,
        )

    @answering
    def Delete(
        self, request: index_pb2.DeleteRequest, context: grpc.ServicerContext
    ) -> index_pb2.DeleteResponse:
        """Remove ids, skipping unknown ones, or everything that a filter holds for."""
        deleted, after = self._store.delete(
            request.collection,
            list(request.ids),
            filter=request.filter,
            patience=patience_of(context),
        )
        return index_pb2.DeleteResponse(deleted=deleted, sequence=after.sequence)

    @answering
    def Get(
        self, request: index_pb2.GetRequest, context: grpc.ServicerContext
    ) -> index_pb2.GetResponse:
        """Look ids up, in order."""
        ids = list(request.ids)
        rows = self._store.get(
            request.collection,
            ids,
            with_vectors=request.with_vectors,
            answer_bytes=self._parts.answer_bytes,
        )
        check_rows(rows, self._parts.answer_bytes)
        return index_pb2.GetResponse(
            records=[record(i, row) for i, row in zip(ids, rows, strict=True)]
        )

    @answering
    def Scroll(
        self, request: index_pb2.ScrollRequest, context: grpc.ServicerContext
    ) -> index_pb2.ScrollResponse:
        """Read a page of records in the order of writing."""
        page = self._store.scan(
            request.collection,
            Scan(
                request.after,
                request.limit or _PAGE_ROWS,
                request.filter,
                with_payload=request.with_payload,
                with_vectors=request.with_vectors,
                answer_bytes=self._parts.answer_bytes,
                patience=patience_of(context),
            ),
        )
        return index_pb2.ScrollResponse(
            records=[record(row.id, row) for row in page.rows],
            next_after=page.after or 0,
            sequence=page.sequence,
        )

    @answering
    def Sample(
        self, request: index_pb2.SampleRequest, context: grpc.ServicerContext
    ) -> index_pb2.SampleResponse:
        """Read records drawn at random."""
        if not 1 <= request.count <= _SAMPLE_ROWS:
            raise InvalidInput(
                f"expected a count from 1 to {_SAMPLE_ROWS}, got {request.count}"
            )
        page = self._store.sample(
            request.collection,
            Scan(
                limit=request.count,
                filter=request.filter,
                with_payload=request.with_payload,
                with_vectors=request.with_vectors,
                answer_bytes=self._parts.answer_bytes,
                patience=patience_of(context),
            ),
            seed=request.seed,
        )
        return index_pb2.SampleResponse(
            records=[record(row.id, row) for row in page.rows], sequence=page.sequence
        )
