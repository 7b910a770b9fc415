"""How well a novelty score separates known from novel images: metrics with intervals.

Two readings of "FPR at 95 % TPR" are in use, and they differ; both are given, named by which
side counts as positive:

``fpr95_id_positive``   share of novel images accepted when 95 % of known ones are accepted
``fpr95_ood_positive``  share of known images rejected when 95 % of novel ones are rejected

``aupr_*`` is average precision, the step-wise area, with that side as the positive class.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from embedkit.evaluate.statistics import (
    FEW,
    CiMethod,
    Counts,
    Metric,
    Metrics,
    bootstrap,
    clopper_pearson,
    content_seed,
    delong,
)
from embedkit.types import Scores

__all__ = ["METRICS", "Separation", "separation_metrics"]

Float64 = npt.NDArray[np.float64]

_NAMES = (
    ("aupr_id_positive", True),
    ("aupr_ood_positive", True),
    ("fpr95_id_positive", False),
    ("fpr95_ood_positive", False),
)
METRICS = ("auroc", *(name for name, _ in _NAMES))
"""What ``separation_metrics`` gives, after the prefix."""

_ROC_POINTS = 200


@dataclass(frozen=True)
class Separation:
    """Known and novel scores, sorted once, so that a resample costs a few cumulative sums.

    Attributes:
        known: (n,) novelty of in-distribution images.
        novel: (m,) novelty of the others.
    """

    known: Scores
    novel: Scores

    @cached_property
    def _sorted(self) -> tuple[npt.NDArray[np.int64], ...]:
        """Order of the known and of the novel scores; how many lie at or below each score."""
        distinct = np.unique(np.concatenate([self.known, self.novel]))
        orders = [np.argsort(scores, kind="stable") for scores in (self.known, self.novel)]
        below = [
            np.searchsorted(scores[order], distinct, side="right")
            for scores, order in zip((self.known, self.novel), orders, strict=True)
        ]
        return orders[0], orders[1], np.append(0, below[0]), np.append(0, below[1])

    def cumulative(self, counts: Sequence[Counts] | None = None) -> tuple[Float64, Float64]:
        """Known and novel images with at most each distinct score, ascending, from 0.

        Args:
            counts: How often each known and each novel image counts; None is once.
        """
        known_order, novel_order, known_below, novel_below = self._sorted
        if counts is None:
            return known_below.astype(np.float64), novel_below.astype(np.float64)
        known, novel = counts
        return (
            np.append(0.0, np.cumsum(known[known_order]))[known_below],
            np.append(0.0, np.cumsum(novel[novel_order]))[novel_below],
        )

    def values(self, counts: Sequence[Counts] | None = None) -> Float64:
        """``aupr_id_positive aupr_ood_positive fpr95_id_positive fpr95_ood_positive``, (4,)."""
        known, novel = self.cumulative(counts)
        rejected_known, rejected_novel = known[-1] - known[::-1], novel[-1] - novel[::-1]
        return np.array(
            [
                _average_precision(known, novel),
                _average_precision(rejected_novel, rejected_known),
                _fpr95(known, novel),
                _fpr95(rejected_novel, rejected_known),
            ]
        )

    def roc(self, label: str) -> dict[str, object]:
        """The ROC curve with novel as positive, thinned for a plot."""
        known, novel = self.cumulative()
        fpr, tpr = 1 - known[::-1] / known[-1], 1 - novel[::-1] / novel[-1]
        across, up = np.diff(known[::-1]), np.diff(novel[::-1])
        corner = across[:-1] * up[1:] != across[1:] * up[:-1]
        kept = np.flatnonzero(np.concatenate([[True], corner, [True]]))
        step = np.linspace(0, len(kept) - 1, min(_ROC_POINTS, len(kept))).round().astype(int)
        kept = kept[step]
        return {
            "kind": "roc",
            "fpr": [round(float(v), 5) for v in fpr[kept]],
            "tpr": [round(float(v), 5) for v in tpr[kept]],
            "label": label,
        }


def separation_metrics(
    known: Scores, novel: Scores, prefix: str, *, resamples: int = 2000
) -> Metrics:
    """Every metric of one detector on one novel set, by ``<prefix>.<metric>``.

    With fewer than ``FEW`` images on a side all but AUROC come without an interval.

    Args:
        known: (n,) novelty of in-distribution images; higher is more novel.
        novel: (m,) novelty of the others.
        prefix: Start of the names, ``<set>.<detector>``.
        resamples: Bootstrap samples of the intervals of all but AUROC.

    Raises:
        InvalidInput: If a set is empty or has a score that is not a number.
    """
    # A resample draws positions: sorted, so that the order of the images changes nothing.
    known, novel = np.sort(known), np.sort(novel)
    area = delong(known, novel)
    n = len(known) + len(novel)
    metrics = {f"{prefix}.auroc": Metric(area.value, area.ci, n, ci_method=area.method)}
    separation = Separation(known, novel)
    smaller = min(len(known), len(novel))
    if smaller < FEW:
        for (name, higher), value in zip(_NAMES, separation.values(), strict=True):
            metrics[f"{prefix}.{name}"] = Metric(float(value), None, n, higher_is_better=higher)
        return metrics
    intervals = bootstrap(
        separation.values,
        (len(known), len(novel)),
        seed=content_seed(prefix, known, novel),
        resamples=resamples,
    )
    for (name, higher), value, found in zip(
        _NAMES, separation.values(), intervals, strict=True
    ):
        method: CiMethod = "bootstrap"
        ci = found
        if value in (0, 1) and ci[0] == ci[1]:
            # No resample can differ where the sets do not overlap; that is not certainty.
            ci = clopper_pearson(round(value) * smaller, smaller)
            method = "clopper_pearson_smaller_set"
        metrics[f"{prefix}.{name}"] = Metric(
            float(value), ci, n, higher_is_better=higher, ci_method=method
        )
    return metrics


def _average_precision(positive: Float64, negative: Float64) -> float:
    """Sum of precision times the recall gained, over thresholds from strict to lax."""
    if positive[-1] == 0:
        return float("nan")
    gained = np.diff(positive) / positive[-1]
    accepted = positive[1:] + negative[1:]
    precision = np.divide(
        positive[1:], accepted, out=np.zeros_like(accepted), where=accepted > 0
    )
    return float(np.sum(gained * precision))


def _fpr95(positive: Float64, negative: Float64) -> float:
    """Negatives accepted at the strictest threshold that accepts 95 % of the positives."""
    enough = int(np.argmax(positive >= np.ceil(0.95 * positive[-1] - 1e-9)))
    return float(negative[enough] / negative[-1])
