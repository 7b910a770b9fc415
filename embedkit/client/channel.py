"""What the channels of both clients have in common."""

from typing import NoReturn

import grpc
from google.protobuf.message import Message

from embedkit.client.messages import Call
from embedkit.errors import Cancelled, EmbedkitError, InvalidInput, Unavailable
from embedkit.wire.proto import embedding_pb2_grpc, index_pb2_grpc, model_pb2_grpc

__all__ = [
    "EMBED_STREAM",
    "ENDED",
    "IN_FLIGHT",
    "OPTIONS",
    "Stubs",
    "check_address",
    "credentials",
    "final",
    "refuse",
]

# Requests of one call that are under way at a time: enough to keep a batcher full while the
# next is being made, few enough not to fill its queue alone.
IN_FLIGHT = 4

EMBED_STREAM = "EmbeddingService.EmbedStream"

OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A server that comes back is found within the time in which requests are repeated.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


class Stubs:
    """The methods of all services on one channel, found by the name in a ``Call``."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._services = {
            "EmbeddingService": embedding_pb2_grpc.EmbeddingServiceStub(channel),  # type: ignore[no-untyped-call]
            "IndexService": index_pb2_grpc.IndexServiceStub(channel),  # type: ignore[no-untyped-call]
            "ModelService": model_pb2_grpc.ModelServiceStub(channel),  # type: ignore[no-untyped-call]
        }

    def method(self, call: Call) -> grpc.UnaryUnaryMultiCallable:
        """The stub's method that sends a call."""
        return getattr(*self._place(call.method))

    def stream(self, name: str) -> grpc.StreamStreamMultiCallable:
        """The stub's bidirectional method of a name, ``Service.Method``."""
        return getattr(*self._place(name))

    def _place(self, whole: str) -> tuple[object, str]:
        service, _, name = whole.partition(".")
        return self._services[service], name


def credentials(token: str | None) -> tuple[tuple[str, str], ...] | None:
    """Call metadata that carries a token.

    Raises:
        InvalidInput: If it has characters that a header cannot carry.
    """
    if token is None:
        return None
    if not token.isascii() or not token.isprintable() or token != token.strip():
        raise InvalidInput(
            "expected a token of printable ASCII characters without space around, "
            f"got another of {len(token)} characters"
        )
    return (("authorization", f"Bearer {token}"),)


ENDED = Unavailable("expected a reply, got the end of the stream")
"""Why requests that were under way are sent again when a server ends their stream."""


def check_address(address: str) -> str:
    """Return the address.

    Raises:
        InvalidInput: If it is neither ``HOST:PORT`` nor a ``unix:`` path.
    """
    if isinstance(address, str):
        host, _, port = address.rpartition(":")
        if address.startswith("unix:"):
            return address
        if host and "/" not in host and port.isdigit() and int(port) < 1 << 16:
            return address
    raise InvalidInput(f"expected an address HOST:PORT or unix:PATH, got {address!r}")


def final(call: Call, error: EmbedkitError) -> Message:
    """Make a reply of a failure that is not repeated, or raise it and name the part."""
    if call.recover is not None:
        return call.recover(error)
    if not call.label:
        raise error
    raise type(error)(f"{call.label}: {error}") from error


def refuse() -> NoReturn:
    """Say that a closed client cannot be used.

    Raises:
        Cancelled: Always.
    """
    raise Cancelled("expected an open client, got a closed one; connect again")
