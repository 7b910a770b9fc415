"""How well one score tells known images from novel ones; higher is more novel."""

import numpy as np

from embedkit.errors import InvalidInput
from embedkit.types import Scores

__all__ = ["auroc"]


def auroc(known: Scores, novel: Scores) -> float:
    """Probability that a novel image scores higher than a known one; ties count half.

    Args:
        known: Novelty score of each in-distribution image, any unit, higher is more novel.
        novel: Novelty score of each out-of-distribution image, in the same unit.

    Returns:
        From 0 to 1; 0.5 is chance.

    Raises:
        InvalidInput: If either set is empty or has a score that is not a number.

    Example:
        >>> auroc(np.array([0.1, 0.2, 0.3]), np.array([0.25, 0.8]))
        0.8333333333333334
    """
    known, novel = _checked(known, novel)
    ordered = np.sort(known)
    below = np.searchsorted(ordered, novel, side="left")
    not_above = np.searchsorted(ordered, novel, side="right")
    wins_twice = int(below.sum()) + int(not_above.sum())
    return wins_twice / (2 * len(known) * len(novel))


def _checked(known: Scores, novel: Scores) -> tuple[Scores, Scores]:
    checked = []
    for name, given in (("known", known), ("novel", novel)):
        scores = np.asarray(given, dtype=np.float64)
        if scores.ndim != 1 or not scores.size or np.isnan(scores).any():
            raise InvalidInput(
                f"expected the {name} scores as (n,) numbers, n at least 1, got shape "
                f"{scores.shape} with {int(np.isnan(scores).sum())} that are not numbers"
            )
        checked.append(scores)
    return checked[0], checked[1]
