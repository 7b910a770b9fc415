"""Searches over gRPC: requests serialised once, with other queries in every call."""

from collections.abc import Sequence
from typing import Protocol

import grpc
import numpy as np

from embedkit.bench.index.vectors import Ids
from embedkit.bench.serving.load import Done, Reply
from embedkit.bench.serving.senders import open_channel
from embedkit.types import Embeddings, SearchParams
from embedkit.wire.codec import encode_tensor
from embedkit.wire.proto import index_pb2

__all__ = ["SearchSender", "found_rows", "search_requests"]

_METHOD = "/embedkit.v1.IndexService/Search"
_TIMEOUT_S = 600.0


class _Future(Protocol):
    """What grpc's futures offer of a finished call."""

    def code(self) -> grpc.StatusCode: ...


def search_requests(
    collection: str, queries: Embeddings, k: int, batch: int, params: SearchParams
) -> list[bytes]:
    """Serialise requests for all queries, ``batch`` in each; a rest is left out.

    Args:
        collection: Its name.
        queries: (n, d) float32, at least ``batch``.
        k: Neighbours per query.
        batch: Queries per request.
        params: How hard the index should try.
    """
    asked = index_pb2.SearchParams(
        exact=params.exact,
        recall_target=params.recall_target,
        nprobe=params.nprobe,
        ef=params.ef,
    )
    return [
        bytes(
            index_pb2.SearchRequest(
                collection=collection,
                k=k,
                vectors=encode_tensor(queries[start : start + batch]),
                params=asked,
            ).SerializeToString()
        )
        for start in range(0, len(queries) - batch + 1, batch)
    ]


def found_rows(address: str, requests: Sequence[bytes]) -> Ids:
    """Send every request once; the ids that come back are numbers of rows.

    Returns:
        (n, k) int64, filled up with -1.
    """
    rows = []
    with open_channel(address) as channel:
        call = channel.unary_unary(_METHOD)
        for request in requests:
            reply = index_pb2.SearchResponse.FromString(call(request, timeout=_TIMEOUT_S))
            rows += [[int(id_) for id_ in hits.ids] for hits in reply.results]
    wide = max(map(len, rows))
    return np.array([row + [-1] * (wide - len(row)) for row in rows], np.int64)


class SearchSender:
    """``Search``, one request after the other in turn.

    Args:
        address: Of the server.
        requests: Serialised ``SearchRequest`` messages, at least one.

    Raises:
        Unavailable: If the server cannot be reached.
    """

    def __init__(self, address: str, requests: Sequence[bytes]) -> None:
        self._channel = open_channel(address)
        self._call = self._channel.unary_unary(_METHOD)
        self._requests = requests
        self._sent = 0

    def send(self, done: Done) -> None:
        """Start one call and return at once."""

        def ended(future: _Future) -> None:
            code = future.code()
            done(Reply("OK" if code is grpc.StatusCode.OK else code.name))

        # Two threads may take the same request; that does no harm.
        self._sent += 1
        request = self._requests[self._sent % len(self._requests)]
        self._call.future(request).add_done_callback(ended)

    def close(self) -> None:
        """Give the connection back."""
        self._channel.close()
