"""One bidirectional stream: requests under way up to a window, answered in any order.

A thread reads requests and hands each on as a ``Call`` of its own; the handler's thread sends
answers as they come. A request takes a place in the window from its arrival until its answer
is sent. While the window is full nothing is read, so that a caller who sends too fast, or does
not read, is held up by the transport's own flow control.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

import grpc
from google.protobuf.message import Message
from google.rpc import code_pb2, status_pb2

from embedkit.errors import EmbedkitError
from embedkit.serve.access.auth import Metadata
from embedkit.serve.observe.record import CallRecord
from embedkit.serve.observe.tracing import Trace
from embedkit.serve.services.call import Reply, forever
from embedkit.wire.status import to_status

__all__ = ["Refuse", "Stream", "StreamCall", "StreamLimits"]

log = logging.getLogger(__name__)

Refuse = Callable[[str, status_pb2.Status], Message]
"""Makes the answer to a failed request of its id and status."""


class StreamLimits(NamedTuple):
    """How much streams may hold.

    Attributes:
        streams: Streams at a time; each takes two threads.
        window: Requests under way in one stream.
        window_bytes: Bytes of such requests beyond which no further one is read.
    """

    streams: int = 64
    window: int = 16
    window_bytes: int = 32 << 20


class StreamCall:
    """A ``Call``: one request of a stream.

    Args:
        stream: Whose.
        size: Bytes of the request.
    """

    __slots__ = ("_stream", "began", "caller", "cancels", "request_id", "size", "trace")

    def __init__(self, stream: "Stream", size: int) -> None:
        self.began = time.perf_counter()
        self.request_id = self.caller = ""
        self.trace: Trace | None = None
        self.size = size
        self.cancels: list[Callable[[], None]] = []
        self._stream = stream

    @property
    def metadata(self) -> Metadata:
        """What the caller sent when it opened the stream."""
        return self._stream.metadata

    def time_left(self) -> float | None:
        """Seconds until the stream's deadline, at least 0; None without one."""
        return self._stream.time_left()

    def watch(self, cancel: Callable[[], None]) -> bool:
        """Have ``cancel`` called if the caller goes away; False if it has gone already."""
        return self._stream.watch(self, cancel)

    def reply(self, message: Reply) -> None:
        """Answer the request. Nothing happens if it is answered."""
        self._stream.reply(self, message)

    def fail(self, error: BaseException) -> None:
        """Answer the request with a failure. Nothing happens if it is answered."""
        self._stream.fail(self, error)


class Stream:
    """The requests of one stream that are under way, and the answers that wait to be sent.

    Args:
        rpc: ``Service/Method``.
        context: Of the handler.
        limits: Size of the window.
        refuse: Makes the answer to a failed request.
        ended: Called with each request and its record once it is answered.
    """

    def __init__(
        self,
        rpc: str,
        context: grpc.ServicerContext,
        limits: StreamLimits,
        refuse: Refuse,
        ended: Callable[[StreamCall, CallRecord], None],
    ) -> None:
        self._rpc = rpc
        self._context = context
        self.metadata: Metadata = tuple(context.invocation_metadata())
        self._limits = limits
        self._refuse = refuse
        self._ended = ended
        self._changed = threading.Condition(threading.Lock())
        self._running: set[StreamCall] = set()
        self._answers: deque[tuple[bytes, int]] = deque()
        self._held = self._held_bytes = 0
        self._refusals_left = limits.window
        self._is_closed = self._is_complete = self._is_draining = self._has_gone = False

    @property
    def was_cut_off(self) -> bool:
        """Whether it ended because the server drains, not because the caller had no more."""
        return self._is_draining and not self._is_complete

    def start(
        self, requests: Iterator[bytes], take: Callable[[StreamCall, bytes], None]
    ) -> None:
        """Read requests on a thread of this stream.

        Args:
            requests: Raises when the caller goes away.
            take: Takes up a request and returns soon; the call is ended there or later.
        """
        if not self._context.add_callback(self._go):
            self._go()
        arguments = (requests, take)
        threading.Thread(
            target=self._read, args=arguments, name="stream-read", daemon=True
        ).start()

    def answers(self) -> Iterator[bytes]:
        """Serialised answers until the last; taking one says that the one before is sent."""
        while (answer := self._next_answer()) is not None:
            data, size = answer
            yield data
            with self._changed:
                self._held -= 1
                self._held_bytes -= size
                self._changed.notify_all()

    def drain(self) -> None:
        """End the stream once what is under way is answered."""
        with self._changed:
            self._is_draining = True
            self._changed.notify_all()

    def time_left(self) -> float | None:
        """Seconds until the stream's deadline, at least 0; None without one."""
        return forever(self._context.time_remaining())

    def watch(self, call: StreamCall, cancel: Callable[[], None]) -> bool:
        """Have ``cancel`` called if the caller goes away; False if it has gone already."""
        with self._changed:
            if self._has_gone:
                return False
            call.cancels.append(cancel)
        return True

    def reply(self, call: StreamCall, message: Reply) -> None:
        """Answer a request well."""
        self._answer(call, message, "OK", "", "")

    def fail(self, call: StreamCall, error: BaseException) -> None:
        """Answer a request with its failure; the stream goes on."""
        if not isinstance(error, EmbedkitError):
            log.error("unexpected failure in %s", self._rpc, exc_info=error)
        status = to_status(error)
        reason = error.reason if isinstance(error, EmbedkitError) else EmbedkitError.reason
        code = code_pb2.Code.Name(status.code)
        answer = self._refuse(call.request_id, status)
        self._answer(call, answer, code, reason, status.message)

    def _answer(
        self, call: StreamCall, message: Reply, code: str, reason: str, details: str
    ) -> None:
        data = message.SerializeToString()
        with self._changed:
            if call not in self._running:
                return
            self._running.discard(call)
            self._answers.append((data, call.size))
            self._changed.notify_all()
        seconds = time.perf_counter() - call.began
        record = CallRecord(
            self._rpc, code, seconds, call.size, call.request_id, reason, details
        )
        self._ended(call, record)

    def _next_answer(self) -> tuple[bytes, int] | None:
        """Wait for an answer; None once there will be no more, or nobody to read it."""
        with self._changed:
            while not self._has_gone:
                if self._answers:
                    return self._answers.popleft()
                if not self._running and (self._is_closed or self._is_draining):
                    return None
                self._changed.wait()
        return None

    def _read(
        self, requests: Iterator[bytes], take: Callable[[StreamCall, bytes], None]
    ) -> None:
        try:
            while self._wait_for_room():
                data = next(requests, None)
                if data is None:
                    self._is_complete = True
                    break
                take(self._enter(len(data)), data)
        except grpc.RpcError:
            self._go()
        except Exception:
            log.exception("a stream could not be read")
            self._go()
        finally:
            with self._changed:
                self._is_closed = True
                self._changed.notify_all()

    def _wait_for_room(self) -> bool:
        """Wait until the window has a place; False if nothing more is to be read."""
        limits = self._limits
        with self._changed:
            while not self._has_gone and (
                self._held >= limits.window or self._held_bytes >= limits.window_bytes
            ):
                self._changed.wait()
            if self._is_draining:
                # A caller that answers each refusal with a new request would never be done.
                self._refusals_left -= 1
            return not self._has_gone and self._refusals_left >= 0

    def _enter(self, size: int) -> StreamCall:
        call = StreamCall(self, size)
        with self._changed:
            self._running.add(call)
            self._held += 1
            self._held_bytes += size
        return call

    def _go(self) -> None:
        """Cancel what is under way: the caller has gone, or needs nothing any more."""
        with self._changed:
            self._has_gone = True
            cancels = [cancel for call in self._running for cancel in call.cancels]
            self._changed.notify_all()
        for cancel in cancels:
            try:
                cancel()
            except Exception:
                log.exception("a request could not be cancelled")
