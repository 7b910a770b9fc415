"""Call: one request under way, whichever transport it came by.

A method that answers later, from another thread, is given a call instead of returning: it ends
it with ``reply`` or ``fail``, once.
"""

from collections.abc import Callable
from typing import Protocol

from google.protobuf.message import Message

from embedkit.serve.observe.tracing import Trace

__all__ = ["Begin", "Call", "Reply", "forever"]

# gRPC gives a call without deadline some centuries.
_FOREVER_S = 1e8


class Reply(Protocol):
    """An answer: a message, or what was written as one already."""

    def SerializeToString(self) -> bytes:
        """Its bytes on the wire."""
        ...


class Call(Protocol):
    """One request under way.

    Attributes:
        trace: Its span, or None if it is not traced.
    """

    trace: Trace | None

    def time_left(self) -> float | None:
        """Seconds until the caller's deadline, at least 0; None without one."""
        ...

    def watch(self, cancel: Callable[[], None]) -> bool:
        """Have ``cancel`` called if the caller goes away; False if it has gone already."""
        ...

    def reply(self, message: Reply) -> None:
        """End the call well. Nothing happens if the caller has gone."""
        ...

    def fail(self, error: BaseException) -> None:
        """End the call with the status of an error. Nothing happens if the caller has gone."""
        ...


Begin = Callable[[Message, Call], None]
"""A method: takes up a request and returns at once; the call is ended here or later."""


def forever(left_s: float | None) -> float | None:
    """Seconds left as gRPC tells them, with None for no deadline."""
    return None if left_s is None or left_s > _FOREVER_S else max(left_s, 0.0)
