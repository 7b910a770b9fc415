"""The bidirectional calls: many writes, or many searches, on one connection."""

from concurrent.futures import Executor
from typing import cast

from google.protobuf.message import Message

from embedkit.errors import QueueFull
from embedkit.serve.handlers import is_shedding
from embedkit.serve.services.call import Call
from embedkit.serve.services.index.content import ContentCalls
from embedkit.serve.services.index.parts import patience_of
from embedkit.serve.services.index.search import SearchCalls
from embedkit.wire.proto import index_pb2

__all__ = ["IndexStreams"]


class IndexStreams:
    """Takes up the requests of streams.

    Args:
        content: Answers single writes.
        searching: Answers single searches.
        pool: Threads that search.
    """

    def __init__(self, content: ContentCalls, searching: SearchCalls, pool: Executor) -> None:
        self._content = content
        self._searching = searching
        self._pool = pool

    def upsert(self, message: Message, call: Call) -> None:
        """Store what a request brings, on the thread that reads the stream.

        So the requests of one stream are committed in its order, and while one of them is
        committed the next waits in the transport.
        """
        request = cast(index_pb2.UpsertRequest, message)
        call.reply(self._content.upserted(request, patience_of(call)))

    def search(self, message: Message, call: Call) -> None:
        """Have a thread of the pool search."""
        self._pool.submit(self._search, cast(index_pb2.SearchRequest, message), call)

    def _search(self, request: index_pb2.SearchRequest, call: Call) -> None:
        try:
            if is_shedding():
                raise QueueFull("too many calls are waiting already; retry later")
            call.reply(self._searching.found(request, patience_of(call)))
        except Exception as error:
            call.fail(error)
