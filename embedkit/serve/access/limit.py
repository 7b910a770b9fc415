"""How much each caller may ask per second: a bucket of tokens that may go into debt."""

import threading
import time
from collections.abc import Callable

from google.protobuf.message import Message

from embedkit.errors import RateLimited

__all__ = ["Bucket", "images_in"]

# A hostile shape must not put its key into debt for years.
_MOST = 1 << 16
_TENSORS = ("pixels", "vectors")


class Bucket:
    """Tokens that come back at a steady rate, up to one second's worth.

    A request is let in for one token and then pays for all of its images, so that one larger
    than the bucket is possible, and those after it wait longer.

    Args:
        rate: Tokens per second, above 0.
        clock: Seconds, never going back.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._most = max(rate, 1.0)
        self._tokens = self._most
        self._filled = clock()
        self._lock = threading.Lock()

    def enter(self) -> None:
        """Let a request in before it is parsed; takes the first token.

        Raises:
            RateLimited: If the caller is in debt; it says how long.
        """
        with self._lock:
            self._fill()
            missing = 1.0 - self._tokens
            if missing <= 0:
                self._tokens -= 1.0
                return
        wait_s = missing / self._rate
        raise RateLimited(
            f"expected at most {self._rate:g} images per second, got more; "
            f"retry in {wait_s:.2f} s",
            retry_s=wait_s,
        )

    def pay(self, count: int) -> None:
        """Take the further tokens of a request of ``count`` images."""
        if count > 1:
            with self._lock:
                self._tokens -= min(count, _MOST) - 1

    def _fill(self) -> None:
        now = self._clock()
        self._tokens = min(self._most, self._tokens + (now - self._filled) * self._rate)
        self._filled = now


def images_in(request: Message) -> int:
    """Images or vectors that a request brings, at least 1, as far as it says itself."""
    fields = request.DESCRIPTOR.fields_by_name
    for name in _TENSORS:
        if name in fields and request.HasField(name):
            shape = getattr(request, name).shape
            return max(int(shape[0]), 1) if len(shape) > 1 else 1
    if "encoded" in fields and request.HasField("encoded"):
        return max(len(request.encoded.data), 1)
    if "inputs" in fields:  # of the Open Inference Protocol; more than one is refused later
        shapes = [tensor.shape for tensor in request.inputs[:1] if tensor.shape]
        return max([1, *(int(shape[0]) for shape in shapes)])
    return 1
