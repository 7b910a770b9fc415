"""How the threads of OpenMP wait for one another: torch's and FAISS's."""

import os
from collections.abc import MutableMapping

__all__ = ["wait_briefly"]

_SPINS = "1000"
"""Rounds of GNU OpenMP's waiting loop, about 20 to 50 microseconds; it does 300,000 by itself,
and 1,000 where it knows of more threads than cores, but it knows only those of its process."""


def wait_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let a thread that waits for another give its core away soon.

    By default it keeps the core for milliseconds. Where another program uses one of the cores,
    that is the core that the other thread needs: training with two threads on two cores then
    took 2 to 3 times as long as it takes now, beside one busy program. What the user has set
    (``GOMP_SPINCOUNT`` or ``OMP_WAIT_POLICY``) stays. To be called before torch or FAISS is
    imported, which is when their OpenMP reads it.

    Args:
        environment: Of this process.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", _SPINS)
