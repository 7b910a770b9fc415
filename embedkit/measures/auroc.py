"""How well one score tells known images from novel ones; higher is more novel throughout.

Two conventions of FPR at 95 % TPR are in use and differ: here each function says which side is
the positive one, and there is no bare ``fpr95``.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput
from embedkit.types import Scores

__all__ = [
    "RocCurve",
    "aupr",
    "auroc",
    "fpr95_id_positive",
    "fpr95_ood_positive",
    "fpr_at_tpr",
    "roc_curve",
]


@dataclass(frozen=True, eq=False)
class RocCurve:
    """Every operating point, novel images being the positives.

    Attributes:
        fpr: Share of known images called novel, rising from 0 to 1.
        tpr: Share of novel images called novel, rising from 0 to 1.
        thresholds: Score from which on an image is called novel; the first is infinite.
    """

    fpr: npt.NDArray[np.float64]
    tpr: npt.NDArray[np.float64]
    thresholds: npt.NDArray[np.float64]


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


def aupr(
    known: Scores,
    novel: Scores,
    *,
    positive: Literal["novel", "known"],
    estimator: Literal["trapezoid", "average_precision"] = "trapezoid",
) -> float:
    """Area under the precision-recall curve, with either side as the positives.

    Args:
        known: Novelty score of each in-distribution image.
        novel: Novelty score of each out-of-distribution image.
        positive: Which images are to be found; ``known`` ranks by falling score.
        estimator: ``trapezoid`` joins the curve's points by lines, as OpenOOD and
            pytorch-ood do; ``average_precision`` sums steps and is never optimistic.

    Returns:
        From 0 to 1; chance is the positives' share of all images, so that the two sides differ.

    Raises:
        InvalidInput: If either set is empty, has a score that is not a number, or an option is
            unknown.
    """
    known, novel = _checked(known, novel)
    sides = {"novel": (novel, known), "known": (-known, -novel)}
    if positive not in sides or estimator not in {"trapezoid", "average_precision"}:
        raise InvalidInput(
            "expected positive 'novel' or 'known' and estimator 'trapezoid' or "
            f"'average_precision', got {positive!r} and {estimator!r}"
        )
    positives, negatives = sides[positive]
    found, false_alarms, _ = _counts(positives, negatives)
    recall = np.concatenate([[0.0], found / len(positives)])
    precision = np.concatenate([[1.0], found / (found + false_alarms)])
    heights = precision[1:]
    if estimator == "trapezoid":
        heights = (precision[1:] + precision[:-1]) / 2
    return float(np.sum(np.diff(recall) * heights))


def fpr_at_tpr(known: Scores, novel: Scores, *, tpr: float = 0.95) -> float:
    """Share of novel images still accepted when ``tpr`` of known images are accepted.

    The threshold is the smallest score that at least ``ceil(tpr * n)`` known images do not
    exceed, so it is always one of the observed scores and never interpolated between two.

    Args:
        known: Novelty score of each in-distribution image, any unit, higher is more novel.
        novel: Novelty score of each out-of-distribution image, in the same unit.
        tpr: Required true-positive rate, a fraction in (0, 1].

    Returns:
        A fraction in [0, 1]; 0 is perfect and about ``tpr`` is chance.

    Raises:
        InvalidInput: If either set is empty, a score is not a number, or ``tpr`` lies outside
            (0, 1].

    Example:
        >>> fpr_at_tpr(np.array([0.1, 0.2, 0.3, 0.9]), np.array([0.25, 0.8]), tpr=0.75)
        0.5
    """
    known, novel = _checked(known, novel)
    if not 0 < tpr <= 1:
        raise InvalidInput(f"expected a true-positive rate in (0, 1], got {tpr}")
    # 0.07 * 100 is a little above 7 in binary; an exact product must not be rounded up.
    accepted = math.ceil(tpr * len(known) - 1e-9)
    threshold = np.sort(known)[accepted - 1]
    return float(np.mean(novel <= threshold))


def fpr95_id_positive(known: Scores, novel: Scores) -> float:
    """Share of novel images accepted when 95 % of known images are (ODIN's convention)."""
    return fpr_at_tpr(known, novel)


def fpr95_ood_positive(known: Scores, novel: Scores) -> float:
    """Share of known images rejected when 95 % of novel images are (OpenOOD's convention)."""
    known, novel = _checked(known, novel)
    return fpr_at_tpr(-novel, -known)


def roc_curve(known: Scores, novel: Scores) -> RocCurve:
    """Every operating point, one per distinct score.

    Args:
        known: Novelty score of each in-distribution image.
        novel: Novelty score of each out-of-distribution image.

    Raises:
        InvalidInput: If either set is empty or has a score that is not a number.
    """
    known, novel = _checked(known, novel)
    found, false_alarms, thresholds = _counts(novel, known)
    return RocCurve(
        np.concatenate([[0.0], false_alarms / len(known)]),
        np.concatenate([[0.0], found / len(novel)]),
        np.concatenate([[np.inf], thresholds]),
    )


def _counts(
    positives: Scores, negatives: Scores
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Scores]:
    """Positives and negatives at or above each distinct score, from the highest down."""
    thresholds = np.unique(np.concatenate([positives, negatives]))[::-1]
    found = len(positives) - np.searchsorted(np.sort(positives), thresholds, side="left")
    false_alarms = len(negatives) - np.searchsorted(np.sort(negatives), thresholds, side="left")
    return found, false_alarms, thresholds


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
