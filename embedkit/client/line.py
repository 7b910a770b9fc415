"""One bidirectional stream, as a line to speak into and to listen to; for both clients."""

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator

import grpc
from google.protobuf.message import Message

from embedkit.errors import DeadlineExceeded

__all__ = ["AioLine", "Line"]


class Line:
    """An open stream.

    Args:
        open_stream: Begins the stream with the requests that it is to send.
    """

    def __init__(self, open_stream: Callable[[Iterator[Message]], grpc.Call]) -> None:
        self._requests: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._replies: queue.SimpleQueue[Message | grpc.RpcError | None] = queue.SimpleQueue()
        self._stream = open_stream(iter(self._requests.get, None))
        threading.Thread(target=self._listen, name="embed-stream", daemon=True).start()

    def send(self, request: Message) -> None:
        """Have a request sent as soon as the transport takes it."""
        self._requests.put(request)

    def receive(self, timeout_s: float | None) -> Message | None:
        """Wait for the next reply; None if the server ended the stream.

        Raises:
            grpc.RpcError: If the stream broke.
            DeadlineExceeded: If nothing came within ``timeout_s`` seconds.
        """
        try:
            reply = self._replies.get(timeout=timeout_s)
        except queue.Empty:
            raise DeadlineExceeded(f"expected an answer in {timeout_s} s, got none") from None
        if isinstance(reply, grpc.RpcError):
            raise reply
        return reply

    def close(self) -> None:
        """End the stream; what is under way is cancelled."""
        self._requests.put(None)
        self._stream.cancel()

    def _listen(self) -> None:
        try:
            for reply in self._stream:
                self._replies.put(reply)
            self._replies.put(None)
        except grpc.RpcError as error:
            self._replies.put(error)


class AioLine:
    """An open stream of an asyncio channel.

    Args:
        open_stream: Begins the stream with the requests that it is to send.
    """

    def __init__(self, open_stream: Callable[[AsyncIterator[Message]], grpc.aio.Call]) -> None:
        self._requests: asyncio.Queue[Message] = asyncio.Queue()
        self._stream = open_stream(self._speak())

    def send(self, request: Message) -> None:
        """Have a request sent as soon as the transport takes it."""
        self._requests.put_nowait(request)

    async def receive(self, timeout_s: float | None) -> Message | None:
        """Wait for the next reply, as ``Line.receive``."""
        try:
            reply = await asyncio.wait_for(self._stream.read(), timeout_s)
        except TimeoutError:
            raise DeadlineExceeded(f"expected an answer in {timeout_s} s, got none") from None
        return None if reply is grpc.aio.EOF else reply

    def close(self) -> None:
        """End the stream; what is under way is cancelled."""
        self._stream.cancel()

    async def _speak(self) -> AsyncIterator[Message]:
        while True:
            yield await self._requests.get()
