"""Intervals for statistics that a bootstrap distorts: the jackknife that leaves out groups.

A bootstrap sample has the same image several times. Copies are each other's nearest neighbours
and add no direction, so measures of neighbours, pairs and ranks are wrong on it. Leaving images
out makes no copies.
"""

import math

import numpy as np
import numpy.typing as npt

from embedkit.evaluate.statistics.intervals import FEW, LEVEL, Interval, Metric

__all__ = ["GROUPS", "jackknife_interval", "jackknife_metric", "random_groups"]

GROUPS = 20
"""Groups that the images fall into; one is left out at a time."""


def random_groups(keys: npt.NDArray[np.unsignedinteger]) -> npt.NDArray[np.int64]:
    """The group of each image, (n,) of 0 to ``GROUPS - 1``, equal in size up to one image.

    Args:
        keys: (n,) a random number per image, so that the order of the images does not matter.
    """
    ranks = np.empty(len(keys), np.int64)
    ranks[np.argsort(keys, kind="stable")] = np.arange(len(keys))
    return ranks % GROUPS


def jackknife_interval(
    value: float, without: npt.NDArray[np.float64], *, least: float = -math.inf
) -> Interval:
    """Interval from the values without each group: ``(G - 1) / G * sum((v_g - mean)^2)``.

    This is the delete-a-group jackknife (Kott 2001): the groups' spread is the variance, with
    Student's quantile for their number. It is for what other images, as many, would give, so
    that a bias that depends on their number is in the value and not in the interval. Its
    variance is never too small on average (Efron and Stein 1981).

    Args:
        value: Of all images.
        without: (G,) values without each group.
        least: The smallest value that the statistic can have.
    """
    from scipy.special import stdtrit

    groups = len(without)
    spread = math.sqrt((groups - 1) / groups * float(np.sum((without - without.mean()) ** 2)))
    half = float(stdtrit(groups - 1, 0.5 + LEVEL / 2)) * spread
    return max(value - half, least), value + half


def jackknife_metric(
    value: float,
    without: npt.NDArray[np.float64] | None,
    n: int,
    *,
    unit: str = "",
    higher_is_better: bool = True,
    least: float = -math.inf,
) -> Metric:
    """A metric with that interval.

    Args:
        value: Of all images.
        without: (GROUPS,) values without each group; None, or one that is not finite, gives no
            interval, and neither do fewer than 20 images.
        n: Images.
        unit: Of the value.
        higher_is_better: Direction of the metric.
        least: The smallest value that the statistic can have.
    """
    if without is None or n < FEW or not np.isfinite(without).all():
        return Metric(value, None, n, unit, higher_is_better)
    ci = jackknife_interval(value, without, least=least)
    return Metric(value, ci, n, unit, higher_is_better, "jackknife")
