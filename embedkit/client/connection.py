"""Runs plans on a blocking channel: several requests under way, repeated where that helps."""

import time
from collections import deque
from dataclasses import dataclass
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from embedkit.client.channel import (
    IN_FLIGHT,
    OPTIONS,
    Stubs,
    check_address,
    credentials,
    final,
    refuse,
)
from embedkit.client.messages import Call, Plan
from embedkit.client.meter import Meter
from embedkit.client.retry import Attempts, RetryPolicy
from embedkit.client.tls import TlsChoice, open_channel
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

    def close(self) -> None:
        """Close the channel; requests under way are cancelled."""
        self._is_closed = True
        self._channel.close()

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
