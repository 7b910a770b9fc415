"""How many queries an attack needs, where some images outlast the limit."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from embedkit.evaluate.statistics import Metric, clopper_pearson
from embedkit.types import Scores

__all__ = ["censored_median", "kaplan_meier", "success_by_queries"]

Queries = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


def censored_median(queries: Queries, success: Flags, limit: int) -> Metric:
    """The median number of queries to success, as a metric; more is better.

    An image that was never fooled needs more than ``limit`` queries. The interval is the exact
    one between order statistics. Where either end, or the median itself, falls among the images
    that were never fooled it is given as ``limit``, which is then a lower bound.

    Args:
        queries: Queries spent on each image, (n,).
        success: Whether it was fooled, (n,).
        limit: Queries allowed.
    """
    from scipy.stats import binom

    n = len(queries)
    needed = np.sort(np.where(success, queries, limit))
    value = float(needed[(n - 1) // 2] + needed[n // 2]) / 2
    # Ranks l and n + 1 - l hold the median with probability 1 - 2 * P(Binomial(n, 1/2) < l).
    rank = int(binom.ppf(0.025, n, 0.5))
    if rank < 1:
        return Metric(value, None, n, "queries", higher_is_better=True)
    ci = float(needed[rank - 1]), float(needed[n - rank])
    return Metric(value, ci, n, "queries", higher_is_better=True, ci_method="order_statistic")


def kaplan_meier(queries: Queries, success: Flags) -> tuple[Queries, Scores, Scores]:
    """Return the share of images still standing after a number of queries (Kaplan-Meier 1958).

    An image that was never fooled is censored at the queries it was given, which need not be
    the same for all: an attack may have given up on it early.

    Args:
        queries: Queries until success, or all that were spent, (n,), n >= 1.
        success: Whether the image was fooled, (n,).

    Returns:
        The numbers of queries at which images fell, ascending, (t,); the share standing after
        each, (t,); its standard error by Greenwood's formula, (t,), 0 where none stands.
    """
    times = np.unique(queries[success])
    at_risk = (queries[:, None] >= times).sum(axis=0).astype(np.float64)
    fell = ((queries[:, None] == times) & success[:, None]).sum(axis=0)
    standing = np.cumprod(1 - fell / at_risk)
    rest = at_risk - fell
    terms = np.where(rest > 0, fell / (at_risk * np.maximum(rest, 1)), 0.0)
    return times, standing, standing * np.sqrt(np.cumsum(terms))


def success_by_queries(
    runs: Sequence[tuple[str, Queries, Flags]], limit: int, *, points: int = 60
) -> dict[str, object]:
    """Return a curve: the share of images fooled within a number of queries.

    One minus the Kaplan-Meier estimate. While no image was given up before, it is the plain
    share of the images, with its exact interval; from then on the interval is Greenwood's.

    Args:
        runs: For each series its name, queries until success or all that were spent (n,), and
            success (n,), n >= 1.
        limit: Queries allowed; the curve ends there.
        points: At most this many numbers of queries are drawn.
    """
    x = np.unique(np.geomspace(1, limit, min(points, limit)).round().astype(int))
    series = {name: _fooled_curve(x, queries, success) for name, queries, success in runs}
    return {
        "kind": "curve",
        "title": "Images fooled by the black-box attack",
        "x": x.tolist(),
        "series": series,
        "xlabel": "queries per image",
        "ylabel": "share of attacked images fooled",
    }


def _fooled_curve(x: Queries, queries: Queries, success: Flags) -> dict[str, list[float]]:
    times, standing, errors = kaplan_meier(queries, success)
    curve: dict[str, list[float]] = {"y": [], "lo": [], "hi": []}
    for limit in x:
        place = int(np.searchsorted(times, limit, side="right")) - 1
        fooled = 1 - float(standing[place]) if place >= 0 else 0.0
        low, high = clopper_pearson(round(fooled * len(queries)), len(queries))
        if (~success & (queries < limit)).any() and place >= 0:
            half = 1.96 * float(errors[place])
            low, high = max(fooled - half, 0.0), min(fooled + half, 1.0)
        curve["y"].append(fooled)
        curve["lo"].append(low)
        curve["hi"].append(high)
    return curve
