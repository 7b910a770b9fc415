"""Metrics that are means over images or come from a table of counts, with intervals."""

import math
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from embedkit.evaluate.statistics import (
    FEW,
    LEVEL,
    CiMethod,
    Interval,
    Metric,
    constant_interval,
    content_seed,
)

__all__ = ["mean_metric", "recentred", "table_metric"]

_RESAMPLES = 500


def mean_metric(
    values: npt.NDArray[np.floating],
    *,
    unit: str = "fraction",
    higher_is_better: bool = True,
    groups: npt.NDArray[np.integer] | None = None,
    least: float = -math.inf,
    most: float = math.inf,
) -> Metric:
    """The mean of one number per image with Student's interval, as a metric.

    The interval is cut where no mean can be, which costs no coverage. Where all numbers are
    equal it is that of ``constant_interval``.

    Args:
        values: (n,) finite numbers, n at least 1.
        unit: Of the values.
        higher_is_better: Direction of the metric.
        groups: (n,) which values belong together, such as draws of one split; the interval is
            that of the groups' means then.
        least: The smallest value that a number can have.
        most: The largest.
    """
    numbers = values.astype(np.float64)
    if groups is not None:
        _, own = np.unique(groups, return_inverse=True)
        numbers = np.bincount(own, weights=numbers) / np.bincount(own)
    value, n = float(numbers.mean()), len(numbers)
    if n < 2:
        return Metric(value, None, len(values), unit, higher_is_better)
    if numbers.min() == numbers.max():
        same = constant_interval(value, n, least=least, most=most)
        method: CiMethod = "clopper_pearson" if same else ""
        return Metric(value, same, len(values), unit, higher_is_better, method)
    from scipy.special import stdtrit

    spread = float(numbers.std(ddof=1)) / math.sqrt(n)
    half = float(stdtrit(n - 1, 0.5 + LEVEL / 2)) * spread
    # The mean of rounded numbers may itself pass a bound by a little.
    ci = (min(value, max(value - half, least)), max(value, min(value + half, most)))
    return Metric(value, ci, len(values), unit, higher_is_better, "student_t")


def table_metric(
    statistic: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
    table: npt.NDArray[np.float64],
    *,
    least: float = 0.0,
) -> Metric:
    """A share computed from a table of counts, with a bootstrap interval over the images.

    Args:
        statistic: From tables (..., c, g) to one number each, at most 1.
        table: (c, g) counts.
        least: The smallest value that the statistic can have.
    """
    n = int(table.sum())
    value = float(statistic(table))
    if n < FEW:
        return Metric(value, None, n)
    rng = np.random.default_rng(content_seed("table", n, table))
    drawn = rng.multinomial(n, (table / n).ravel(), size=_RESAMPLES)
    values = statistic(drawn.reshape(_RESAMPLES, *table.shape).astype(np.float64))
    return Metric(value, recentred(value, values, least=least), n, ci_method=_RECENTRED)


_RECENTRED: Final = "bootstrap_recentred"


def recentred(
    value: float, drawn: npt.NDArray[np.float64], *, least: float = 0.0, most: float = 1.0
) -> Interval:
    """Percentile interval of resampled values, moved by their bias.

    Statistics such as NMI and calibration error are larger on resamples than on the images
    themselves, so their plain percentiles may not even hold the value.
    """
    moved = drawn - (drawn.mean() - value)
    low, high = np.quantile(moved, [(1 - LEVEL) / 2, 0.5 + LEVEL / 2])
    return max(min(float(low), value), least), min(max(float(high), value), most)
