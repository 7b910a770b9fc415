"""What stands before every servicer method: limits, parsing, draining, a record of the call."""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2

from embedkit.errors import EmbedkitError, InvalidInput, MessageTooLarge, QueueFull, Unavailable
from embedkit.serve.access.auth import Access, Caller, Check
from embedkit.serve.direct import DirectCall, DirectCalls, is_supported
from embedkit.serve.handlers import is_shedding
from embedkit.serve.observe.record import CallRecord
from embedkit.serve.observe.tracing import Trace, Tracing
from embedkit.serve.services.call import Begin
from embedkit.serve.services.ending import Transport, WaitingCall, WatchedCall
from embedkit.serve.services.failure import abort
from embedkit.serve.services.stream import Refuse, StreamCall, StreamLimits
from embedkit.serve.services.streams import Streams
from embedkit.wire.status import from_status

__all__ = ["Guard"]

# Longer than a caller takes to send what it had decided to send before it was refused.
_QUIET_S = 0.05
# Characters of a caller's id that are kept.
_MAX_ID = 256
# Parsing more than this would keep the loop from other calls for too long.
_INLINE_BYTES = 1 << 18


class Guard:
    """Takes the place of ``grpc.Server`` where generated code registers a service.

    Requests reach the wrapped method parsed, after their size was checked. Doing this at
    registration costs nothing per call, unlike an interceptor.

    Args:
        server: The real server.
        max_message_bytes: A larger request is refused with MESSAGE_TOO_LARGE.
        pool: The server's own threads.
        limits: How many streams there may be, and how much each may hold.
        access: Who may call what; by default anybody may call what needs no admin.
        record: Called after each call, on the thread that ended it.
        tracing: Begins the span of each call; by default there is none.
    """

    def __init__(
        self,
        server: grpc.Server,
        *,
        max_message_bytes: int,
        pool: Executor,
        limits: StreamLimits | None = None,
        access: Access | None = None,
        record: Callable[[CallRecord], None] | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._is_draining = False
        self._running: set[object] = set()
        self._last_arrival = 0.0
        self._server = server
        self._max_bytes = max_message_bytes
        self._pool = pool
        self._record = record
        self._tracing = tracing
        self._access = access or Access()
        self._direct = DirectCalls(server) if is_supported(server) else None
        self._streams = Streams(limits or StreamLimits(), self._ended, self._tell)

    @property
    def streams(self) -> int:
        """Streams that run now."""
        return len(self._streams)

    @property
    def is_direct(self) -> bool:
        """Whether methods that answer later run on the server's own loop."""
        return self._direct is not None

    def start(self) -> None:
        """Start the server and take calls."""
        self._server.start()
        if self._direct is not None:
            self._direct.start()

    def drain(self, timeout_s: float) -> bool:
        """Refuse new calls with UNAVAILABLE and wait until none runs and none comes any more.

        The transport cancels, without a reason, calls that it received but nobody took up; so
        it may only be stopped once callers have heard that they should go elsewhere.

        Returns:
            Whether that was so within ``timeout_s`` seconds.
        """
        self._is_draining = True
        self._streams.drain()
        began = time.perf_counter()
        while (now := time.perf_counter()) < began + timeout_s:
            is_idle = not self._running and not self._streams
            if is_idle and now - max(began, self._last_arrival) > _QUIET_S:
                return True
            time.sleep(_QUIET_S / 10)
        return False

    def stop(self) -> None:
        """End the threads of streams, after the server has stopped."""
        self._streams.stop()

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Ignore the unguarded handlers; the registered ones below serve the same methods."""

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler]
    ) -> None:
        """Register the unary methods of a service behind this guard.

        Bidirectional ones, which here means reflection, only have their callers checked.
        """
        guarded: dict[str, grpc.RpcMethodHandler] = {}
        for name, handler in handlers.items():
            rpc = f"{service.rpartition('.')[2]}/{name}"
            if handler.unary_unary is not None:
                guarded[name] = self._guard(rpc, handler)
            elif handler.stream_stream is not None:
                guarded[name] = self._check_only(rpc, handler)
        self._server.add_registered_method_handlers(service, guarded)

    def add_method(
        self, service: str, name: str, begin: Begin, parse: Callable[[bytes], Message]
    ) -> None:
        """Register a unary method that answers later instead of returning.

        Args:
            service: With its package.
            name: Of the method.
            begin: Runs on the server's own loop where that is possible: it must return within
                microseconds.
            parse: Makes the request of its bytes.
        """
        rpc = f"{service.rpartition('.')[2]}/{name}"
        check = self._access.check_of(rpc)

        def take(call: Transport, data: bytes) -> None:
            watched = WatchedCall(rpc, call, len(data), self._ended)
            self._take(watched, data, begin, parse, check)

        if self._direct is None:
            self._server.add_registered_method_handlers(service, {name: _waiting(take)})
            return

        def receive(call: DirectCall, data: bytes) -> None:
            if len(data) > _INLINE_BYTES:
                self._pool.submit(take, call, data)
            else:
                take(call, data)

        self._direct.add(f"/{service}/{name}", receive)

    def add_stream(
        self,
        service: str,
        name: str,
        begin: Begin,
        parse: Callable[[bytes], Message],
        refuse: Refuse,
    ) -> None:
        """Register a bidirectional method of which each request is a call of its own.

        Args:
            service: With its package.
            name: Of the method.
            begin: Takes up a request, on the stream's reading thread.
            parse: Makes a request of its bytes.
            refuse: Makes the answer to a request that failed; the stream goes on.
        """
        rpc = f"{service.rpartition('.')[2]}/{name}"
        check = self._access.check_of(rpc)

        def admit(context: grpc.ServicerContext) -> None:
            if check is not None:
                check(context.invocation_metadata()).enter()

        def take(call: StreamCall, data: bytes) -> None:
            # Once more for each request: its key may have been withdrawn, or its rate spent.
            self._take(call, data, begin, parse, check)

        handler = self._streams.handler(rpc, admit, take, refuse)
        self._server.add_registered_method_handlers(service, {name: handler})

    def _take(
        self,
        call: WatchedCall | StreamCall,
        data: bytes,
        begin: Begin,
        parse: Callable[[bytes], Message],
        check: Check | None,
    ) -> None:
        """Admit a request and have it taken up; a failure on the way is the call's answer."""
        self._running.add(call)
        self._last_arrival = call.began
        if self._tracing is not None:
            call.trace = self._tracing.begin(call.metadata)
        request = None
        try:
            caller = None if check is None else check(call.metadata)
            if caller is not None:
                call.caller = caller.name
            request = self._admit(data, parse, caller)
            call.request_id = _id_of(request)
            begin(request, call)
        except Exception as error:
            if request is None and isinstance(call, StreamCall):
                # Its caller knows which one was refused by nothing but the id.
                call.request_id = _find_id(data, parse)
            call.fail(error)

    def _ended(self, call: WatchedCall | StreamCall, record: CallRecord) -> None:
        self._running.discard(call)
        self._tell(record._replace(caller=call.caller) if call.caller else record, call.trace)

    def _tell(self, record: CallRecord, trace: Trace | None = None) -> None:
        if trace is not None:
            trace.end(record)
        if self._record is not None:
            self._record(record)

    def _check_only(self, rpc: str, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        behaviour, check = handler.stream_stream, self._access.check_of(rpc)
        if check is None:
            return handler

        def answer(requests: Iterator[object], context: grpc.ServicerContext) -> object:
            try:
                check(context.invocation_metadata()).enter()
            except EmbedkitError as error:
                abort(context, error)
            return behaviour(requests, context)

        return grpc.stream_stream_rpc_method_handler(
            answer, handler.request_deserializer, handler.response_serializer
        )

    def _guard(self, rpc: str, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        behaviour, parse = handler.unary_unary, handler.request_deserializer
        check = self._access.check_of(rpc)

        def answer(data: bytes, context: grpc.ServicerContext) -> Message:
            began = time.perf_counter()
            request_id, code, caller = "", "", None
            self._running.add(context)
            self._last_arrival = began
            trace = None
            if self._tracing is not None:
                trace = self._tracing.begin(context.invocation_metadata())
            try:
                try:
                    caller = None if check is None else check(context.invocation_metadata())
                    request = self._admit(data, parse, caller)
                except EmbedkitError as error:
                    abort(context, error)
                request_id = _id_of(request)
                response = behaviour(request, context)
                code = "OK"
                return response
            finally:
                self._running.discard(context)
                name = "" if caller is None else caller.name
                fields = rpc, code, time.perf_counter() - began, len(data), request_id
                self._tell(_record(fields, context, name), trace)

        return grpc.unary_unary_rpc_method_handler(
            answer, response_serializer=handler.response_serializer
        )

    def _admit(
        self, data: bytes, parse: Callable[[bytes], Message], caller: Caller | None
    ) -> Message:
        """Parse a request that may come in, at its caller's expense.

        Raises:
            MessageTooLarge, Unavailable, QueueFull, RateLimited, InvalidInput: If it may not.
        """
        if caller is not None:
            caller.enter()
        if len(data) > self._max_bytes:
            raise MessageTooLarge(
                f"expected a message of at most {self._max_bytes} bytes, got {len(data)}; "
                "send fewer images per call"
            )
        if self._is_draining:
            raise Unavailable("the server is shutting down; retry elsewhere")
        if is_shedding():
            raise QueueFull("too many calls are waiting already; retry later")
        try:
            request = parse(data)
        except DecodeError as error:
            raise InvalidInput(
                f"expected a protobuf message, got {len(data)} other bytes"
            ) from error
        if caller is not None:
            caller.pay(request)
        return request


def _record(
    fields: tuple[str, str, float, int, str], context: grpc.ServicerContext, caller: str
) -> CallRecord:
    """The record of a call that an ordinary handler answered, or failed if it has no code."""
    rpc, code, seconds, size, request_id = fields
    reason, details = "", ""
    if not code:
        status = context.code()
        code = status.name if status is not None else "UNKNOWN"
        reason, details = _cause(context)
    return CallRecord(rpc, code, seconds, size, request_id, reason, details, caller)


def _waiting(take: Callable[[Transport, bytes], None]) -> grpc.RpcMethodHandler:
    """A method as an ordinary handler, whose thread waits for the answer."""

    def answer(data: bytes, context: grpc.ServicerContext) -> bytes:
        call = WaitingCall(context)
        take(call, data)
        return call.wait()

    return grpc.unary_unary_rpc_method_handler(answer)


def _find_id(data: bytes, parse: Callable[[bytes], Message]) -> str:
    """The id of a request that was not let in; empty if it is none."""
    try:
        return _id_of(parse(data))
    except DecodeError:
        return ""


def _id_of(request: Message) -> str:
    """The caller's own id of a request, by whichever name its protocol has for it."""
    found: str = getattr(request, "request_id", "") or getattr(request, "id", "")
    return found[:_MAX_ID]


def _cause(context: grpc.ServicerContext) -> tuple[str, str]:
    """Reason and message of a call that was aborted."""
    for key, value in context.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            error = from_status(status_pb2.Status.FromString(value))
            return error.reason, str(error)
    return "", (context.details() or b"").decode(errors="replace")
