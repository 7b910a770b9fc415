"""How good a ranking is: one number per query, from which of its places are relevant.

In all functions ``relevant`` is (m, k) bool, whether the item at each place of each query's
ranking is relevant, best place first; ``total`` is (m,), how many relevant items there are to
be found, R in the papers. A query without any gives NaN where its number is not defined.
"""

from typing import Annotated

import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput

__all__ = ["Relevance", "average_precision", "hit", "map_at_r", "ndcg", "precision"]

Relevance = Annotated[npt.NDArray[np.bool_], "m k"]
"""Whether each place of each query's ranking is relevant."""

Totals = Annotated[npt.NDArray[np.int64], "m"]
Values = Annotated[npt.NDArray[np.float64], "m"]


def precision(relevant: Relevance, k: int) -> Values:
    """The share of the first ``k`` places that is relevant, (m,) in [0, 1].

    Raises:
        InvalidInput: If the rankings have fewer than ``k`` places.

    Example:
        >>> import numpy as np
        >>> precision(np.array([[True, False, True]]), 2)
        array([0.5])
    """
    return np.asarray(_first(relevant, k).mean(axis=1, dtype=np.float64))


def hit(relevant: Relevance, k: int) -> npt.NDArray[np.bool_]:
    """Whether any of the first ``k`` places is relevant, (m,): recall@k of metric learning.

    Raises:
        InvalidInput: If the rankings have fewer than ``k`` places.
    """
    return np.asarray(_first(relevant, k).any(axis=1))


def average_precision(relevant: Relevance, total: Totals) -> Values:
    """``sum_i P(i) rel(i) / R`` over the whole ranking, (m,) in [0, 1].

    P(i) is the precision of the first i places. Rankings that are cut off count what lies
    behind the cut as not found.
    """
    return _per_relevant((_precisions(relevant) * relevant).sum(axis=1), total)


def map_at_r(relevant: Relevance, total: Totals) -> Values:
    """``sum_{i <= R} P(i) rel(i) / R``, (m,) in [0, 1] (Musgrave et al. 2020).

    Raises:
        InvalidInput: If a ranking has fewer than R places.
    """
    if len(total) and total.max() > relevant.shape[1]:
        raise InvalidInput(
            f"expected rankings of at least R = {total.max()} places, got {relevant.shape[1]}"
        )
    within = np.arange(relevant.shape[1]) < total[:, np.newaxis]
    return _per_relevant((_precisions(relevant) * (relevant & within)).sum(axis=1), total)


def ndcg(relevant: Relevance, total: Totals, k: int) -> Values:
    """``sum_{i <= k} rel(i) / log2(i + 1)`` over the same of the best ranking, (m,) in [0, 1].

    Raises:
        InvalidInput: If the rankings have fewer than ``k`` places.
    """
    discounts = 1 / np.log2(np.arange(2, k + 2))
    gained = _first(relevant, k) @ discounts
    ideal = np.concatenate([[np.nan], np.cumsum(discounts)])[np.minimum(total, k)]
    return np.asarray(gained / ideal)


def _first(relevant: Relevance, k: int) -> Relevance:
    if not 1 <= k <= relevant.shape[1]:
        raise InvalidInput(f"expected k from 1 to {relevant.shape[1]}, got {k}")
    return relevant[:, :k]


def _precisions(relevant: Relevance) -> npt.NDArray[np.float64]:
    """Precision of the first i places, for every i."""
    return np.asarray(np.cumsum(relevant, axis=1) / np.arange(1, relevant.shape[1] + 1))


def _per_relevant(sums: Values, total: Totals) -> Values:
    quotients: Values = np.full(len(sums), np.nan)
    np.divide(sums, total, out=quotients, where=total > 0)
    return quotients
