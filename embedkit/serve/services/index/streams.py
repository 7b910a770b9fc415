"""The bidirectional calls: many writes, or many searches, on one connection."""

from typing import cast

from google.protobuf.message import Message

from embedkit.serve.services.call import Call
from embedkit.serve.services.index.content import ContentCalls
from embedkit.serve.services.index.line import SearchLine
from embedkit.serve.services.index.parts import patience_of
from embedkit.wire.proto import index_pb2

__all__ = ["IndexStreams"]


class IndexStreams:
    """Takes up the requests of streams.

    Args:
        content: Answers single writes.
        line: Where searches wait for a thread.
    """

    def __init__(self, content: ContentCalls, line: SearchLine) -> None:
        self._content = content
        self._line = line

    def upsert(self, message: Message, call: Call) -> None:
        """Store what a request brings, on the thread that reads the stream.

        So the requests of one stream are committed in its order, and while one of them is
        committed the next waits in the transport.
        """
        request = cast(index_pb2.UpsertRequest, message)
        call.reply(self._content.upserted(request, patience_of(call)))

    def search(self, message: Message, call: Call) -> None:
        """Have a thread search, together with what else waits."""
        self._line.put(cast(index_pb2.SearchRequest, message), call)
