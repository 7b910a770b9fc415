"""Momentum: how fast a teacher follows."""

import math

__all__ = ["rising_momentum"]


def rising_momentum(start: float, progress: float) -> float:
    """BYOL's schedule, section 3.2: from ``start`` to 1 along half a cosine.

    Args:
        start: Share of the old weights kept per step at the start of the run, in [0, 1].
        progress: Share of the run that is done, in [0, 1].

    Example:
        >>> rising_momentum(0.5, 0.0), rising_momentum(0.5, 1.0)
        (0.5, 1.0)
    """
    return 1 - (1 - start) * (math.cos(math.pi * progress) + 1) / 2
