"""What stands before every servicer method: limits, parsing, draining, a record of the call."""

import time
from collections.abc import Callable, Mapping

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2

from embedkit.errors import EmbedkitError, InvalidInput, MessageTooLarge, QueueFull, Unavailable
from embedkit.serve.handlers import is_shedding
from embedkit.serve.observe.record import CallRecord
from embedkit.serve.services.failure import abort
from embedkit.wire.status import from_status

__all__ = ["Guard"]

# Longer than a caller takes to send what it had decided to send before it was refused.
_QUIET_S = 0.05
# Characters of a caller's id that are kept.
_MAX_ID = 256


class Guard:
    """Takes the place of ``grpc.Server`` where generated code registers a service.

    Requests reach the wrapped method parsed on the handler's own thread, after their size was
    checked. Doing this at registration costs nothing per call, unlike an interceptor.

    Args:
        server: The real server.
        max_message_bytes: A larger request is refused with MESSAGE_TOO_LARGE.
        record: Called after each call, on the handler's thread.
    """

    def __init__(
        self,
        server: grpc.Server,
        *,
        max_message_bytes: int,
        record: Callable[[CallRecord], None] | None = None,
    ) -> None:
        self._is_draining = False
        self._running: set[grpc.ServicerContext] = set()
        self._last_arrival = 0.0
        self._server = server
        self._max_bytes = max_message_bytes
        self._record = record

    def drain(self, timeout_s: float) -> bool:
        """Refuse new calls with UNAVAILABLE and wait until none runs and none comes any more.

        The transport cancels, without a reason, calls that it received but nobody took up; so
        it may only be stopped once callers have heard that they should go elsewhere.

        Returns:
            Whether that was so within ``timeout_s`` seconds.
        """
        self._is_draining = True
        began = time.perf_counter()
        while (now := time.perf_counter()) < began + timeout_s:
            if not self._running and now - max(began, self._last_arrival) > _QUIET_S:
                return True
            time.sleep(_QUIET_S / 10)
        return False

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Ignore the unguarded handlers; the registered ones below serve the same methods."""

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler]
    ) -> None:
        """Register the unary methods of a service behind this guard."""
        guarded = {
            name: self._guard(f"{service.rpartition('.')[2]}/{name}", handler)
            for name, handler in handlers.items()
            if handler.unary_unary is not None
        }
        self._server.add_registered_method_handlers(service, guarded)

    def _guard(self, rpc: str, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        behaviour, parse = handler.unary_unary, handler.request_deserializer

        def answer(data: bytes, context: grpc.ServicerContext) -> Message:
            began = time.perf_counter()
            request_id, code = "", ""
            self._running.add(context)
            self._last_arrival = began
            try:
                request = self._admit(data, parse, context)
                request_id = getattr(request, "request_id", "")[:_MAX_ID]
                response = behaviour(request, context)
                code = "OK"
                return response
            finally:
                self._running.discard(context)
                self._report(rpc, code, began, data, request_id, context)

        return grpc.unary_unary_rpc_method_handler(
            answer, response_serializer=handler.response_serializer
        )

    def _admit(
        self, data: bytes, parse: Callable[[bytes], Message], context: grpc.ServicerContext
    ) -> Message:
        """Parse a request that may come in, or end the call."""
        failure: EmbedkitError
        try:
            if len(data) > self._max_bytes:
                failure = MessageTooLarge(
                    f"expected a message of at most {self._max_bytes} bytes, got {len(data)}; "
                    "send fewer images per call"
                )
            elif self._is_draining:
                failure = Unavailable("the server is shutting down; retry elsewhere")
            elif is_shedding():
                failure = QueueFull("too many calls are waiting already; retry later")
            else:
                return parse(data)
        except DecodeError:
            failure = InvalidInput(f"expected a protobuf message, got {len(data)} other bytes")
        abort(context, failure)

    def _report(
        self,
        rpc: str,
        code: str,
        began: float,
        data: bytes,
        request_id: str,
        context: grpc.ServicerContext,
    ) -> None:
        if self._record is None:
            return
        reason, details = "", ""
        if not code:
            status = context.code()
            code = status.name if status is not None else "UNKNOWN"
            reason, details = _cause(context)
        seconds = time.perf_counter() - began
        self._record(CallRecord(rpc, code, seconds, len(data), request_id, reason, details))


def _cause(context: grpc.ServicerContext) -> tuple[str, str]:
    """Reason and message of a call that was aborted."""
    for key, value in context.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            error = from_status(status_pb2.Status.FromString(value))
            return error.reason, str(error)
    return "", (context.details() or b"").decode(errors="replace")
