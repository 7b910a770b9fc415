"""Searching a collection: the nearest, everything within a score, groups, near-duplicates."""

from collections.abc import Sequence
from itertools import islice

import grpc

from embedkit.errors import InvalidInput
from embedkit.retrieve.ask import window
from embedkit.retrieve.ask.groups import grouped
from embedkit.retrieve.ask.pairs import Wanted, pairs
from embedkit.retrieve.ask.within import within
from embedkit.retrieve.names import HitTable
from embedkit.retrieve.patience import Patience
from embedkit.retrieve.store import Answer, Query
from embedkit.serve.services.call import Reply
from embedkit.serve.services.failure import answering
from embedkit.serve.services.index.messages import check_hits, group_hits, hits, params_of
from embedkit.serve.services.index.packed import FEW, Written, written_results
from embedkit.serve.services.index.parts import Calls, patience_of, vectors_of
from embedkit.wire.proto import index_pb2

__all__ = ["SearchCalls"]

_RANGE_HITS, _PAIRS, _NEIGHBOURS = 1000, 1000, 100


class SearchCalls(Calls):
    """Calls that search."""

    @answering
    def Search(self, request: index_pb2.SearchRequest, context: grpc.ServicerContext) -> Reply:
        """Find the neighbours of vectors or images."""
        return self.found(request, patience_of(context))

    def found(self, request: index_pb2.SearchRequest, patience: Patience) -> Reply:
        """Find the neighbours of vectors or images."""
        query = self._query(request, request.k, patience)
        if request.group_by or request.group_size:
            return self._groups(request, query)
        threshold = request.score_threshold if request.HasField("score_threshold") else None
        answer = window.search(
            self._store, request.collection, query, offset=request.offset, threshold=threshold
        )
        return self._replies([request], answer, [len(query.vectors)])[0]

    def found_together(
        self, requests: Sequence[index_pb2.SearchRequest], patience: Patience
    ) -> list[Reply]:
        """Find the neighbours for requests that differ in nothing but their vectors.

        Args:
            requests: At least one; each with vectors (n, d) whose bytes are as many as that
                takes. Neither groups nor an offset nor a threshold is asked for.
            patience: Of the most patient caller.
        """
        counts = [request.vectors.shape[0] for request in requests]
        joined = index_pb2.SearchRequest()
        joined.CopyFrom(requests[0])
        joined.vectors.shape[0] = sum(counts)
        joined.vectors.data = b"".join([request.vectors.data for request in requests])
        answer = self._store.search(joined.collection, self._query(joined, joined.k, patience))
        return self._replies(requests, answer, counts)

    def _replies(
        self,
        requests: Sequence[index_pb2.SearchRequest],
        answer: Answer,
        counts: Sequence[int],
    ) -> list[Reply]:
        """One reply for each request, which has the hits of so many queries."""
        check_hits(answer.hits, self._parts.answer_bytes)
        found = answer.hits
        ids = [request.request_id for request in requests]
        if isinstance(found, HitTable) and found.slots.size and len(found) > FEW:
            results = written_results(found, counts)
            if results is not None:
                rest = {i: _without_hits(answer, i).SerializeToString() for i in set(ids)}
                return [Written(r + rest[i]) for r, i in zip(results, ids, strict=True)]
        replies = [_without_hits(answer, request_id) for request_id in ids]
        messages = map(hits, found)
        for reply, count in zip(replies, counts, strict=True):
            reply.results.extend(islice(messages, count))
        return list(replies)

    @answering
    def RangeSearch(
        self, request: index_pb2.RangeSearchRequest, context: grpc.ServicerContext
    ) -> index_pb2.RangeSearchResponse:
        """Find everything within a score of vectors or images."""
        query = self._query(request, request.limit or _RANGE_HITS, patience_of(context))
        answer, cut = within(self._store, request.collection, query, request.score_threshold)
        check_hits(answer.hits, self._parts.answer_bytes)
        return index_pb2.RangeSearchResponse(
            results=[hits(found) for found in answer.hits],
            cut=cut,
            exact=answer.exact,
            model_digest=answer.collection.model_digest,
            sequence=answer.collection.sequence,
        )

    @answering
    def Duplicates(
        self, request: index_pb2.DuplicatesRequest, context: grpc.ServicerContext
    ) -> index_pb2.DuplicatesResponse:
        """Find the next pairs within a score."""
        page = pairs(
            self._store,
            request.collection,
            Wanted(
                request.score_threshold,
                request.after,
                request.limit or _PAIRS,
                request.neighbours or _NEIGHBOURS,
                request.filter,
                params_of(request.params),
                patience_of(context),
            ),
        )
        return index_pb2.DuplicatesResponse(
            pairs=[
                index_pb2.Pair(first=p.first, second=p.second, score=p.score)
                for p in page.pairs
            ],
            next_after=page.after or 0,
            exact=page.exact,
            cut=page.cut,
        )

    def _query(
        self,
        request: index_pb2.SearchRequest | index_pb2.RangeSearchRequest,
        k: int,
        patience: Patience,
    ) -> Query:
        collection = self._store.describe(request.collection)
        vectors, digest = vectors_of(self._parts, request, collection, patience)
        return Query(
            vectors,
            k,
            request.filter,
            model_digest=digest,
            with_payload=request.with_payload,
            with_vectors=request.with_vectors,
            params=params_of(request.params),
            answer_bytes=self._parts.answer_bytes,
            patience=patience,
        )

    def _groups(
        self, request: index_pb2.SearchRequest, query: Query
    ) -> index_pb2.SearchResponse:
        if request.offset or request.HasField("score_threshold") or not request.group_by:
            raise InvalidInput(
                "expected group_by and group_size without offset and score_threshold, got "
                f"group_by={request.group_by!r} with other ones"
            )
        found = grouped(
            self._store, request.collection, query, request.group_by, request.group_size or 1
        )
        check_hits(
            [g.hits for groups in found.groups for g in groups], self._parts.answer_bytes
        )
        return index_pb2.SearchResponse(
            results=[group_hits(groups) for groups in found.groups],
            exact=found.exact,
            model_digest=found.answer.collection.model_digest,
            request_id=request.request_id,
            sequence=found.answer.collection.sequence,
        )


def _without_hits(answer: Answer, request_id: str) -> index_pb2.SearchResponse:
    return index_pb2.SearchResponse(
        exact=answer.exact,
        model_digest=answer.collection.model_digest,
        request_id=request_id,
        sequence=answer.collection.sequence,
    )
