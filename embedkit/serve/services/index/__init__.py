"""IndexService: collections of vectors, filled and searched by vector or by image."""

from collections.abc import Callable
from concurrent.futures import Executor
from typing import cast

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import status_pb2

from embedkit.retrieve.store import VectorStore
from embedkit.serve.observe.record import ItemsRecord
from embedkit.serve.services.guard import Guard
from embedkit.serve.services.index.collections import CollectionCalls
from embedkit.serve.services.index.content import ContentCalls
from embedkit.serve.services.index.line import SearchLine
from embedkit.serve.services.index.parts import EmbedCall, Parts
from embedkit.serve.services.index.search import SearchCalls
from embedkit.serve.services.index.streams import IndexStreams
from embedkit.wire.proto import index_pb2

__all__ = ["EmbedCall", "IndexServicer", "add_index_service"]

_SERVICE = index_pb2.DESCRIPTOR.services_by_name["IndexService"]


class IndexServicer(CollectionCalls, ContentCalls, SearchCalls):
    """Answers every unary call of IndexService from a store."""


def add_index_service(
    guard: Guard,
    store: VectorStore,
    embed: EmbedCall,
    *,
    pool: Executor,
    backlog: int = 1024,
    answer_bytes: int = 32 << 20,
    max_images: int = 1024,
    count_items: Callable[[ItemsRecord], None] | None = None,
) -> None:
    """Register IndexService on a server that has not started.

    Args:
        guard: Of the server.
        store: Holds the collections.
        embed: Embeds the images of requests that carry images.
        pool: Threads that search.
        backlog: Searches that may wait; further ones are refused.
        answer_bytes: Of the largest answer.
        max_images: Most images in one call.
        count_items: Called with the images of each request that carries some.
    """
    parts = Parts(store, embed, answer_bytes, max_images, count_items)
    servicer = IndexServicer(parts)
    handlers = {
        method.name: grpc.unary_unary_rpc_method_handler(
            getattr(servicer, method.name),
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=lambda reply: reply.SerializeToString(),
        )
        for method in _SERVICE.methods
        if not method.client_streaming and not (guard.is_direct and method.name == "Search")
    }
    guard.add_registered_method_handlers(_SERVICE.full_name, handlers)
    streams = IndexStreams(servicer, SearchLine(servicer, pool, backlog=backlog))
    if (
        guard.is_direct
    ):  # one change of threads less; else its own thread would wait for another
        parse_search = cast(Callable[[bytes], Message], index_pb2.SearchRequest.FromString)
        guard.add_method(_SERVICE.full_name, "Search", streams.search, parse_search)
    for name, begin, request in (
        ("UpsertStream", streams.upsert, index_pb2.UpsertRequest),
        ("SearchStream", streams.search, index_pb2.SearchRequest),
    ):
        reply = GetMessageClass(_SERVICE.methods_by_name[name].output_type)
        parse = cast(Callable[[bytes], Message], request.FromString)
        guard.add_stream(_SERVICE.full_name, name, begin, parse, _refusal(reply))


def _refusal(reply: type[Message]) -> Callable[[str, status_pb2.Status], Message]:
    """Make the answer to a request of a stream that failed."""
    return lambda request_id, status: reply(request_id=request_id, status=status)
