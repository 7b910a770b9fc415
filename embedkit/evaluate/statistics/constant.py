"""The interval of a mean of equal values, which show no spread to go by."""

import math

from embedkit.evaluate.statistics.intervals import LEVEL, Interval, clopper_pearson

__all__ = ["constant_interval"]


def constant_interval(
    value: float, n: int, *, least: float, most: float, level: float = LEVEL
) -> Interval | None:
    """Interval of the mean where each of n values is the same.

    No resample can differ then, and Student's interval has no width. What is known is the share
    of the population that has this value, n of n here: at least as much as Clopper and
    Pearson's interval says. All the rest may be as small or as large as a value can be. For a
    share that is 0 or 1 this is their interval itself.

    Args:
        value: Of each.
        n: How many, at least 1.
        least: The smallest that a value can be.
        most: The largest.
        level: Coverage, in (0, 1).

    Returns:
        (low, high), or None where a value has no bounds, so that nothing is known of the rest.

    Example:
        >>> from embedkit.evaluate.statistics import constant_interval
        >>> [round(end, 3) for end in constant_interval(1.0, 20, least=0.0, most=1.0)]
        [0.832, 1.0]
    """
    if not (math.isfinite(least) and math.isfinite(most)):
        return None
    share, _ = clopper_pearson(n, n, level=level)
    # Values that were computed may pass a bound by their rounding.
    low = min(value, value * share + least * (1 - share))
    return low, max(value, value * share + most * (1 - share))
