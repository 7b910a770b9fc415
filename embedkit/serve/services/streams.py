"""All streams of a server: how many there may be, their threads, their end when it drains."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc

from embedkit.errors import EmbedkitError, QueueFull, Unavailable
from embedkit.serve.observe.record import CallRecord
from embedkit.serve.services.failure import abort
from embedkit.serve.services.stream import Refuse, Stream, StreamCall, StreamLimits

__all__ = ["Streams"]

# Threads that are left to refuse a stream when all allowed ones run.
_REFUSING_THREADS = 2


class Streams:
    """Runs streams on threads of their own, so that they keep none from other calls.

    Args:
        limits: How many there may be, and how much each may hold.
        ended: Called with each request and its record once it is answered.
        refused: Called with the record of each stream that may not begin.
    """

    def __init__(
        self,
        limits: StreamLimits,
        ended: Callable[[StreamCall, CallRecord], None],
        refused: Callable[[CallRecord], None],
    ) -> None:
        self._limits = limits
        self._ended = ended
        self._refused = refused
        self._lock = threading.Lock()
        self._running: set[Stream] = set()
        self._is_draining = False
        self._pool = ThreadPoolExecutor(
            limits.streams + _REFUSING_THREADS, thread_name_prefix="stream"
        )

    def __len__(self) -> int:
        """Streams that run now."""
        return len(self._running)

    def handler(
        self,
        rpc: str,
        admit: Callable[[grpc.ServicerContext], None],
        take: Callable[[StreamCall, bytes], None],
        refuse: Refuse,
    ) -> grpc.RpcMethodHandler:
        """Return the handler of a bidirectional method.

        Args:
            rpc: ``Service/Method``.
            admit: Raises if the caller may not open a stream.
            take: Takes up a request and returns soon; the call is ended there or later.
            refuse: Makes the answer to a request that failed; the stream goes on.
        """

        def answer(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            stream = Stream(rpc, context, self._limits, refuse, self._ended)
            try:
                admit(context)
                self._enter(stream)
            except EmbedkitError as error:
                fields = error.status, 0.0, 0, "", error.reason, str(error)
                self._refused(CallRecord(rpc, *fields))
                abort(context, error)
            try:
                stream.start(requests, take)
                yield from stream.answers()
            finally:
                self._running.discard(stream)
            if stream.was_cut_off:
                abort(context, Unavailable("the server is shutting down; retry elsewhere"))

        # grpcio's own name; without it streams would still work, on the server's threads.
        answer.experimental_thread_pool = self._pool  # type: ignore[attr-defined]
        return grpc.stream_stream_rpc_method_handler(answer)

    def drain(self) -> None:
        """Begin no stream any more, and end each once what is under way is answered."""
        with self._lock:
            self._is_draining = True
            running = tuple(self._running)
        for stream in running:
            stream.drain()

    def stop(self) -> None:
        """End the threads, after the server has stopped."""
        self._pool.shutdown(wait=False)

    def _enter(self, stream: Stream) -> None:
        with self._lock:
            if self._is_draining:
                raise Unavailable("the server is shutting down; retry elsewhere")
            if len(self._running) >= self._limits.streams:
                raise QueueFull(
                    f"expected at most {self._limits.streams} streams, got one more; send "
                    "several requests on each"
                )
            self._running.add(stream)
