"""How a call that answers later is ended: once, recorded, whichever transport it came by."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

import grpc
from grpc_status import rpc_status

from embedkit.errors import EmbedkitError
from embedkit.serve.access.auth import Metadata
from embedkit.serve.observe.record import CallRecord
from embedkit.serve.observe.tracing import Trace
from embedkit.serve.services.call import Reply, forever
from embedkit.wire.status import to_status

__all__ = ["Transport", "WaitingCall", "WatchedCall"]

log = logging.getLogger(__name__)

Trailing = tuple[tuple[str, str | bytes], ...] | None


class Transport(Protocol):
    """What carries one call."""

    @property
    def metadata(self) -> Metadata:
        """What the caller sent beside the request."""
        ...

    def time_left(self) -> float:
        """Seconds until the deadline; centuries without one."""
        ...

    def watch(self, cancel: Callable[[], None]) -> bool:
        """Have ``cancel`` called if the caller goes away; False if it has gone already."""
        ...

    def send(self, data: bytes) -> None:
        """End the call well with a serialised reply."""
        ...

    def end(self, code: grpc.StatusCode, details: bytes, trailing: Trailing = None) -> None:
        """End the call with a failure."""
        ...


class WatchedCall:
    """A ``Call`` that is ended once and then recorded.

    Args:
        rpc: ``Service/Method``.
        transport: What carries it.
        size: Bytes of the request.
        ended: Called with the call and its record after its end.
    """

    __slots__ = (
        "_ended",
        "_is_ended",
        "_rpc",
        "_size",
        "_transport",
        "began",
        "caller",
        "request_id",
        "trace",
    )

    def __init__(
        self,
        rpc: str,
        transport: Transport,
        size: int,
        ended: "Callable[[WatchedCall, CallRecord], None]",
    ) -> None:
        self.began = time.perf_counter()
        self.request_id = self.caller = ""
        self.trace: Trace | None = None
        self._rpc = rpc
        self._transport = transport
        self._size = size
        self._ended = ended
        self._is_ended = False

    @property
    def metadata(self) -> Metadata:
        """What the caller sent beside the request."""
        return self._transport.metadata

    def time_left(self) -> float | None:
        """Seconds until the caller's deadline, at least 0; None without one."""
        return forever(self._transport.time_left())

    def watch(self, cancel: Callable[[], None]) -> bool:
        """Have ``cancel`` called if the caller goes away; False if it has gone already."""
        return self._transport.watch(cancel)

    def reply(self, message: Reply) -> None:
        """End the call well. Nothing happens if it has ended."""
        if not self._is_ended:
            self._is_ended = True
            self._transport.send(message.SerializeToString())
            self._tell("OK", "", "")

    def fail(self, error: BaseException) -> None:
        """End the call with the status of an error. Nothing happens if it has ended."""
        if self._is_ended:
            return
        self._is_ended = True
        if not isinstance(error, EmbedkitError):
            log.error("unexpected failure in %s", self._rpc, exc_info=error)
        message = to_status(error)
        status = rpc_status.to_status(message)
        self._transport.end(status.code, status.details.encode(), status.trailing_metadata)
        reason = error.reason if isinstance(error, EmbedkitError) else EmbedkitError.reason
        self._tell(status.code.name, reason, message.message)

    def _tell(self, code: str, reason: str, details: str) -> None:
        seconds = time.perf_counter() - self.began
        record = CallRecord(
            self._rpc, code, seconds, self._size, self.request_id, reason, details
        )
        self._ended(self, record)


class WaitingCall:
    """A transport over an ordinary handler: its thread waits until somebody ends the call."""

    def __init__(self, context: grpc.ServicerContext) -> None:
        self._context = context
        self._gate = threading.Event()
        self._data = b""
        self._failure: tuple[grpc.StatusCode, bytes, Trailing] | None = None

    @property
    def metadata(self) -> Metadata:
        """What the caller sent beside the request."""
        return tuple(self._context.invocation_metadata())

    def time_left(self) -> float:
        """Seconds until the deadline; centuries without one."""
        left: float = self._context.time_remaining()
        return left

    def watch(self, cancel: Callable[[], None]) -> bool:
        """Have ``cancel`` called if the caller goes away; False if it has gone already."""
        return bool(self._context.add_callback(cancel))

    def send(self, data: bytes) -> None:
        """End the call well with a serialised reply."""
        self._data = data
        self._gate.set()

    def end(self, code: grpc.StatusCode, details: bytes, trailing: Trailing = None) -> None:
        """End the call with a failure."""
        self._failure = code, details, trailing
        self._gate.set()

    def wait(self) -> bytes:
        """Block until the call is ended; return the reply or abort with the failure."""
        # Nobody may end a call whose caller has gone, and its thread must not wait for that.
        if self._context.add_callback(self._gate.set):
            self._gate.wait()
        if self._failure is not None:
            code, details, trailing = self._failure
            self._context.set_trailing_metadata(trailing or ())
            self._context.abort(code, details.decode())
        return self._data
