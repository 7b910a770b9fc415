"""Which cores a process may use, so that server and client do not compete."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from embedkit.errors import InvalidInput

__all__ = ["parse_cores", "pinned"]


def parse_cores(text: str) -> tuple[int, ...]:
    """Core numbers of ``0``, ``0,2`` or ``4-7``; empty for ``any``.

    Raises:
        InvalidInput: If it is none of these, or this process may not use one of the cores.
    """
    if text == "any":
        return ()
    cores: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise InvalidInput(f"expected cores such as 0, 0,2, 4-7 or any, got {text!r}")
        cores.update(range(int(first), int(last or first) + 1))
    usable = _usable()
    if not cores or not cores <= usable:
        raise InvalidInput(f"expected cores of {sorted(usable)}, got {text!r}; or say any")
    return tuple(sorted(cores))


@contextmanager
def pinned(cores: tuple[int, ...]) -> Iterator[None]:
    """Keep this thread, and the threads and processes that it starts, on some cores.

    Args:
        cores: Core numbers; empty leaves everything as it is.
    """
    if not cores or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _usable() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))
