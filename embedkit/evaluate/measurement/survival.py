"""How many queries an attack needs, where some images outlast the limit."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from embedkit.evaluate.statistics import Metric, clopper_pearson

__all__ = ["censored_median", "success_by_queries"]

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
    rank = max(int(binom.ppf(0.025, n, 0.5)), 1)
    ci = float(needed[rank - 1]), float(needed[n - rank])
    return Metric(value, ci, n, "queries", higher_is_better=True, ci_method="order_statistic")


def success_by_queries(
    runs: Sequence[tuple[str, Queries, Flags]], limit: int, *, points: int = 60
) -> dict[str, object]:
    """Return a curve: the share of images fooled within a number of queries.

    Args:
        runs: For each series its name, queries per image (n,) and success (n,), n >= 1.
        limit: Queries allowed; the curve ends there.
        points: At most this many numbers of queries are drawn.
    """
    x = np.unique(np.geomspace(1, limit, min(points, limit)).round().astype(int))
    series = {}
    for name, queries, success in runs:
        fooled = [int(np.count_nonzero(success & (queries <= q))) for q in x]
        intervals = [clopper_pearson(count, len(queries)) for count in fooled]
        series[name] = {
            "y": [count / len(queries) for count in fooled],
            "lo": [low for low, _ in intervals],
            "hi": [high for _, high in intervals],
        }
    return {
        "kind": "curve",
        "title": "Images fooled by the black-box attack",
        "x": x.tolist(),
        "series": series,
        "xlabel": "queries per image",
        "ylabel": "share of attacked images fooled",
    }
