"""Unary calls without a thread each, on the event loop that ``grpc.server`` runs anyway.

``grpc.server`` takes up each call on a pool thread, which waits there for the request's bytes
and then for the batch: four changes of thread, and more than half of what a small call costs
(``docs/performance.md``). Here the bytes go to a function on the loop's own thread, which
queues them; the thread that has the answer sends it.

There is no public interface for this. The few private names used are those that
``is_supported`` looks for; where a version of grpcio lacks one, callers register an ordinary
handler instead.
"""

import logging
import time
from collections.abc import Callable
from typing import Any, Protocol

import grpc

__all__ = ["DirectCall", "DirectCalls", "is_supported"]

log = logging.getLogger(__name__)

try:
    from grpc._cython import cygrpc
except ImportError:  # another implementation of grpcio
    cygrpc = None

_NONE: tuple[None, tuple[()]] = (None, ())
_SERVER = ("_state", "_cy_server")
_STATE = ("completion_queue", "server", "rpc_states", "stage", "lock")
_CYTHON = (
    "ReceiveMessageOperation",
    "ReceiveCloseOnServerOperation",
    "SendInitialMetadataOperation",
    "SendMessageOperation",
    "SendStatusFromServerOperation",
)

Receive = Callable[["DirectCall", bytes], None]


class _Event(Protocol):
    """What grpcio's loop hands to a callback: of a call's arrival, or of an operation's end."""

    success: bool
    call: Any
    call_details: Any
    invocation_metadata: Any
    batch_operations: Any


def is_supported(server: grpc.Server) -> bool:
    """Whether this version of grpcio has what is needed here."""
    return (
        cygrpc is not None
        and all(hasattr(cygrpc, name) for name in _CYTHON)
        and all(hasattr(server, name) for name in _SERVER)
        and all(hasattr(server._state, name) for name in _STATE)
        and hasattr(server._cy_server, "register_method")
        and hasattr(server._state.server, "request_registered_call")
    )


class DirectCalls:
    """Methods of one server that are called back with each request's bytes.

    Args:
        server: Made by ``grpc.server``, not started yet, for which ``is_supported`` holds.
    """

    def __init__(self, server: grpc.Server) -> None:
        self._server: Any = server
        self._methods: dict[str, Receive] = {}

    def add(self, method: str, receive: Receive) -> None:
        """Register a method before the server starts.

        Args:
            method: ``/package.Service/Method``.
            receive: Called on the server's loop with every call and its request; must return
                within microseconds, and end the call here or later.
        """
        self._server._cy_server.register_method(method)
        self._methods[method] = receive

    def start(self) -> None:
        """Take calls; after the server's own start."""
        for method in self._methods:
            self._expect(method)

    def _expect(self, method: str) -> None:
        """Ask for the next call of a method; the loop calls back with it."""
        state = self._server._state

        def arrived(event: _Event) -> tuple[object, tuple[()]]:
            if event.success:
                self._expect(method)
                call = DirectCall(state.rpc_states, event)
                _guarded(call, self._methods[method])
            return _NONE

        with state.lock:
            # A server that stops has closed the queue for new expectations.
            if state.stage.value == "started":
                queue = state.completion_queue
                state.server.request_registered_call(queue, queue, method, arrived)


def _guarded(call: "DirectCall", receive: Receive) -> None:
    """Start to receive; nothing may escape to the loop, which would end with it."""
    try:
        call.receive(receive)
    except Exception:
        log.exception("a call could not be received")


class DirectCall:
    """One call: its metadata, its caller's patience, and its one answer.

    Args:
        running: The server's set of unfinished calls, which it waits for when it stops.
        event: The loop's event of the call's arrival.
    """

    __slots__ = (
        "_call",
        "_cancels",
        "_deadline",
        "_is_closed",
        "_is_ended",
        "_is_over",
        "_is_sent",
        "_metadata",
        "_running",
    )

    def __init__(self, running: set[object], event: _Event) -> None:
        self._running = running
        self._call = event.call
        self._metadata = event.invocation_metadata
        self._deadline: float = event.call_details.deadline
        self._cancels: list[Callable[[], None]] | None = []
        self._is_ended = False  # by us
        # These three belong to the loop's thread.
        self._is_sent = self._is_closed = self._is_over = False

    @property
    def metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """What the caller sent beside the request."""
        return tuple(self._metadata or ())

    @property
    def has_gone(self) -> bool:
        """Whether the caller cancelled, disconnected, or ran out of time."""
        return self._cancels is None

    def peer(self) -> str:
        """Address of the caller."""
        return str(self._call.peer().decode())

    def auth_context(self) -> dict[str, list[bytes]]:
        """What the transport knows of the caller's certificate."""
        found = cygrpc.auth_context(self._call) or {}
        return {key.decode(): list(values) for key, values in found.items()}

    def time_left(self) -> float:
        """Seconds until the deadline, at least 0; centuries without one."""
        return max(self._deadline - time.time(), 0.0)

    def watch(self, cancel: Callable[[], None]) -> bool:
        """Have ``cancel`` called if the caller goes away; False if it has gone already."""
        cancels = self._cancels
        if cancels is None:
            return False
        cancels.append(cancel)
        return self._cancels is not None

    def receive(self, receive: Receive) -> None:
        """Ask for the request's bytes and for word of the caller's leaving."""
        self._running.add(self)

        def received(event: _Event) -> tuple[object, tuple[()]]:
            data = event.batch_operations[0].message()
            try:
                if data is not None:
                    receive(self, data)
            except Exception:
                log.exception("a call's handler failed outside its own care")
                self.end(grpc.StatusCode.INTERNAL, b"internal error")
            return _NONE

        self._call.start_server_batch((cygrpc.ReceiveCloseOnServerOperation(0),), self._closed)
        self._call.start_server_batch((cygrpc.ReceiveMessageOperation(0),), received)

    def send(self, data: bytes) -> None:
        """End the call well with a serialised reply."""
        self._finish((cygrpc.SendMessageOperation(data, 0),), 0, b"", None)

    def end(
        self,
        code: grpc.StatusCode,
        details: bytes,
        trailing: tuple[tuple[str, str | bytes], ...] | None = None,
    ) -> None:
        """End the call with a failure."""
        self._finish((), code.value[0], details, trailing)

    def _finish(
        self,
        message: tuple[object, ...],
        code: int,
        details: bytes,
        trailing: tuple[tuple[str, str | bytes], ...] | None,
    ) -> None:
        if self._is_ended or self._cancels is None:
            return
        self._is_ended = True
        operations = (
            cygrpc.SendInitialMetadataOperation(None, 0),
            *message,
            cygrpc.SendStatusFromServerOperation(trailing, code, details, 0),
        )
        self._call.start_server_batch(operations, self._sent)

    def _sent(self, _: object) -> tuple[object, tuple[()]]:
        self._is_sent = True
        return self._over()

    def _closed(self, event: _Event) -> tuple[object, tuple[()]]:
        self._is_closed = True
        cancels = self._cancels
        if event.batch_operations[0].cancelled():
            self._cancels = None
            for cancel in cancels or ():
                try:
                    cancel()
                except Exception:
                    log.exception("a call could not be cancelled")
        return self._over()

    def _over(self) -> tuple[object, tuple[()]]:
        """Tell the loop, once, that it need not wait for this call any longer."""
        if self._is_over or not self._is_closed or (self._is_ended and not self._is_sent):
            return _NONE
        self._is_over = True
        return self, ()
