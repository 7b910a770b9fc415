"""Counts what was asked."""

import threading

from embedkit.client.messages import Call
from embedkit.types import Usage

__all__ = ["Meter"]


class Meter:
    """Totals of images, calls, bytes and retries; safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._usage = Usage()

    @property
    def usage(self) -> Usage:
        """Totals so far."""
        return self._usage

    def sent(self, call: Call) -> None:
        """Count a request, once however often it is sent."""
        size = call.request.ByteSize()
        with self._lock:
            u = self._usage
            self._usage = Usage(
                u.images + call.images, u.calls + 1, u.bytes_sent + size, u.retries
            )

    def retried(self) -> None:
        """Count a repetition."""
        with self._lock:
            u = self._usage
            self._usage = Usage(u.images, u.calls, u.bytes_sent, u.retries + 1)
