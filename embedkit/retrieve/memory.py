"""Memory that is free again goes back to the system, as the C library seldom does by itself."""

import ctypes
import threading

__all__ = ["Copies", "give_back", "keep_little"]

# Of malloc.h; what is larger is a mapping of its own and gone when it is freed.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _KEPT_BYTES = -1, -3, 4 << 20
_MOST_BYTES = 32 << 20
_LITTLE_BYTES = 1 << 20
_PAUSE_S = 0.5


def keep_little() -> None:
    """Have glibc keep at most some MiB of what is freed, for each of its heaps.

    Else each heap keeps twice the largest request for ever, and there is one for each thread.
    """
    option = getattr(ctypes.CDLL(None), "mallopt", None)
    if option is not None:
        for number in (_MMAP_THRESHOLD, _TRIM_THRESHOLD):
            option(number, _KEPT_BYTES)


def give_back() -> None:
    """Return freed memory to the system: glibc keeps it, as much as half an index."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class Copies:
    """What requests leave in the heaps of the threads that answered them.

    It is given back, which takes some milliseconds, after so many bytes and when no more have
    come for a while. A thread more or less that counts at the same time does not matter.
    """

    def __init__(self) -> None:
        self._bytes = 0
        self._pause: threading.Timer | None = None

    def made(self, size: int) -> None:
        """A request of some bytes has been answered."""
        self._bytes += size
        if self._bytes > _MOST_BYTES:
            self._bytes = 0
            give_back()
        if self._pause is None and size > _LITTLE_BYTES:
            self._pause = threading.Timer(_PAUSE_S, self._paused, (self._bytes,))
            self._pause.daemon = True
            self._pause.start()

    def stop(self) -> None:
        """Do not look again."""
        if self._pause is not None:
            self._pause.cancel()

    def _paused(self, then: int) -> None:
        """Give memory back if nothing has come since; else look again later."""
        self._pause = None
        if self._bytes == then:
            give_back()
        else:
            self.made(_LITTLE_BYTES + 1)
