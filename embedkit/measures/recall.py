"""What a search misses: its hits beside those of exact search, judged by their scores."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput

__all__ = ["mean_interval", "share_found"]

# Scores are float32: two hits this close are a tie, and either of them is right.
_TIE = 1e-6
_Z = 1.959964
_TAIL = 0.025


def share_found(
    served: Sequence[Sequence[float]], exact: Sequence[Sequence[float]]
) -> npt.NDArray[np.float64]:
    """The share of the true neighbours that a search found, for each query, in [0, 1].

    A hit is right if its score reaches that of the last true neighbour, so that equally near
    items do not count as missed.

    Args:
        served: Scores of each query's hits, higher is better.
        exact: Scores of its true neighbours, best first, at least one.

    Raises:
        InvalidInput: If a query has no true neighbour, or their numbers differ.

    Example:
        >>> share_found([[0.9, 0.5]], [[0.9, 0.8]])
        array([0.5])
    """
    if len(served) != len(exact) or not all(len(scores) for scores in exact):
        raise InvalidInput(
            f"expected neighbours for each of {len(served)} queries, got {len(exact)} lists, "
            f"the shortest of {min(map(len, exact), default=0)}"
        )
    shares = []
    for found, true in zip(served, exact, strict=True):
        least = true[-1] - _TIE * max(1.0, abs(true[-1]))
        hits = sum(score >= least for score in found)
        shares.append(min(hits, len(true)) / len(true))
    return np.array(shares, np.float64)


def mean_interval(shares: npt.NDArray[np.float64]) -> tuple[float, float]:
    """A 95 % interval of the mean of shares over queries.

    Where every query has 1, it is the exact binomial one for queries that find all.
    """
    mean, n = float(shares.mean()), len(shares)
    if (shares == 1).all():
        return float(_TAIL ** (1 / n)), 1.0
    if n < 2:
        return 0.0, 1.0
    half = _Z * float(shares.std(ddof=1)) / n**0.5
    return max(0.0, mean - half), min(1.0, mean + half)
