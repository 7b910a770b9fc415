"""Runs plans on a blocking channel: several requests under way, repeated where that helps."""

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from embedkit.client.channel import (
    EMBED_STREAM,
    ENDED,
    IN_FLIGHT,
    OPTIONS,
    Stubs,
    check_address,
    credentials,
    final,
    refuse,
)
from embedkit.client.line import Line
from embedkit.client.messages import Call, Plan
from embedkit.client.meter import Meter
from embedkit.client.retry import Attempts, RetryPolicy
from embedkit.client.tls import TlsChoice, open_channel
from embedkit.client.window import Refused, Window
from embedkit.errors import EmbedkitError
from embedkit.wire.status import from_rpc_error, retry_delay_s

__all__ = ["Connection"]

Result = TypeVar("Result")


@dataclass(frozen=True)
class _Sent:
    """A request under way."""

    call: Call
    attempts: Attempts
    future: grpc.Future


class Connection:
    """A channel to one server.

    Args:
        address: ``HOST:PORT``.
        policy: How long to try.
        token: Sent with every call.
        tls: Whether and how to encrypt.
    """

    def __init__(
        self, address: str, policy: RetryPolicy, token: str | None, tls: TlsChoice = False
    ) -> None:
        self._policy = policy
        self._metadata = credentials(token)
        self._channel = open_channel(grpc, check_address(address), tls, OPTIONS)
        self._stubs = Stubs(self._channel)
        self._is_closed = False

    def run(self, plan: Plan[Result], *meters: Meter) -> Result:
        """Send a plan's requests in order and return its result.

        Raises:
            EmbedkitError: Of the first request that fails for good; the others are cancelled.
        """
        if self._is_closed:
            refuse()
        calls = iter(plan.calls)
        first, following = next(calls, None), next(calls, None)
        if first is None:
            return plan.read([])
        if following is None:
            # Blocking is faster than a future by two changes of thread.
            return plan.read([self._answer(first, self._admit(first, meters), meters)])
        replies: list[Message] = []
        sent = deque([self._send(first, meters), self._send(following, meters)])
        try:
            for call in calls:
                if len(sent) >= IN_FLIGHT:
                    replies.append(self._receive(sent.popleft(), meters))
                sent.append(self._send(call, meters))
            while sent:
                replies.append(self._receive(sent.popleft(), meters))
        finally:
            for other in sent:
                other.future.cancel()
        return plan.read(replies)

    def stream(
        self, window: Window[Result], *meters: Meter, method: str = EMBED_STREAM
    ) -> Iterator[Result]:
        """Send the requests of many plans on one stream; yields their results in order.

        What the stream does not answer is sent again by itself, where that helps; a stream that
        breaks is opened again for what follows.

        Raises:
            EmbedkitError: Of the first request that fails for good; the others are cancelled.
        """
        line: Line | None = None
        try:
            while True:
                while (call := window.begin()) is not None:
                    for meter in meters:
                        meter.sent(call)
                    line = line or self._open_line(method)
                    line.send(call.request)
                yield from window.results()
                if window.is_over:
                    return
                if line is None or not window.under_way:
                    continue  # the results that were taken made room for further requests
                refused, has_ended = self._listen(line, window)
                if has_ended:
                    line = None
                for number, one in enumerate(refused):
                    window.finish(one.call, self._recover(one, number == 0, meters))
        finally:
            if line is not None:
                line.close()

    def close(self) -> None:
        """Close the channel; requests under way are cancelled."""
        self._is_closed = True
        self._channel.close()

    def _open_line(self, name: str) -> Line:
        if self._is_closed:
            refuse()
        method = self._stubs.stream(name)
        return Line(lambda requests: method(requests, metadata=self._metadata))

    def _listen(self, line: Line, window: Window[Result]) -> tuple[tuple[Refused, ...], bool]:
        """Wait for a reply; returns what must be recovered, and whether the stream is over."""
        try:
            reply = line.receive(self._policy.timeout_s)
        except grpc.RpcError as failure:
            if self._is_closed:
                refuse()
            error, wanted_s = from_rpc_error(failure), retry_delay_s(failure)
            return window.refused(error, wanted_s), True
        if reply is None:
            return window.refused(ENDED, None), True
        refused = window.read(reply)
        return () if refused is None else (refused,), False

    def _recover(self, refused: Refused, waits: bool, meters: tuple[Meter, ...]) -> Message:
        """Repeat by itself a request that a stream did not answer, or end it."""
        attempts = Attempts(self._policy)
        try:
            pause_s = attempts.pause_s(refused.error, refused.wanted_s)
        except EmbedkitError as last:
            return final(refused.call, last)
        for meter in meters:
            meter.retried()
        if waits:
            time.sleep(pause_s)
        return self._answer(refused.call, attempts, meters)

    def _admit(self, call: Call, meters: tuple[Meter, ...]) -> Attempts:
        for meter in meters:
            meter.sent(call)
        return Attempts(self._policy)

    def _send(self, call: Call, meters: tuple[Meter, ...]) -> _Sent:
        attempts = self._admit(call, meters)
        future = self._stubs.method(call).future(
            call.request, timeout=attempts.timeout_s(), metadata=self._metadata
        )
        return _Sent(call, attempts, future)

    def _receive(self, sent: _Sent, meters: tuple[Meter, ...]) -> Message:
        return self._answer(sent.call, sent.attempts, meters, sent.future)

    def _answer(
        self,
        call: Call,
        attempts: Attempts,
        meters: tuple[Meter, ...],
        future: grpc.Future | None = None,
    ) -> Message:
        """Wait for the reply to a request, and repeat the request where that helps.

        Args:
            call: The request.
            attempts: How often and how long to try.
            meters: Count the repetitions.
            future: The request under way, or None if it was not sent yet.
        """
        while True:
            try:
                if future is not None:
                    return future.result()
                return self._stubs.method(call)(
                    call.request, timeout=attempts.timeout_s(), metadata=self._metadata
                )
            except grpc.FutureCancelledError:
                refuse()
            except grpc.RpcError as failure:
                error = from_rpc_error(failure)
                wanted_s = retry_delay_s(failure)
            try:
                pause_s = attempts.pause_s(error, wanted_s)
            except EmbedkitError as last:
                return final(call, last)
            for meter in meters:
                meter.retried()
            future = None
            time.sleep(pause_s)
