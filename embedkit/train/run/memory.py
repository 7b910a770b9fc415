"""Memory that is kept while a run goes on: every step needs as much as the one before."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["kept_memory"]

# From glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
_KEEP = {_TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 64 * 2**20, _MMAP_MAX: 0}
_DEFAULT = {
    _TRIM_THRESHOLD: 128 * 2**10,
    _TOP_PAD: 128 * 2**10,
    _MMAP_THRESHOLD: 128 * 2**10,
    _MMAP_MAX: 65536,
}


@contextmanager
def kept_memory() -> Iterator[None]:
    """Let freed memory be used again at once, instead of going back to the system.

    glibc returns every large tensor when it is freed, and the system clears each page when it
    is asked for the next one: on two cores a step of the small ResNet spent a quarter of its
    time on that, and takes two thirds of it without. Where there is no glibc, nothing changes.
    """
    malloc = _malloc()
    if malloc is None:
        yield
        return
    for option, value in _KEEP.items():
        malloc.mallopt(option, value)
    try:
        yield
    finally:
        for option, value in _DEFAULT.items():
            malloc.mallopt(option, value)
        malloc.malloc_trim(0)


def _malloc() -> ctypes.CDLL | None:
    """The C library, if it has what is needed."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
