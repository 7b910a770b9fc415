"""Protocols over several sets: near and far, full spectrum, and what a threshold promised."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from embedkit.detect.threshold import Threshold
from embedkit.evaluate.context import Context
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
from embedkit.measures.auroc import auroc
from embedkit.types import Scores

__all__ = [
    "KNOWN",
    "SetScores",
    "broken_promise",
    "full_spectrum",
    "full_spectrum_names",
    "group_means",
    "group_names",
]

KNOWN = "known"

SetScores = dict[str, Scores]
"""Novelty of each image, by data set; ``known`` is the test set."""


def group_means(
    context: Context, detector: str, found: SetScores, *, resamples: int
) -> Metrics:
    """The mean AUROC of the near sets and of the far sets, as OpenOOD reports it.

    Every set counts alike, whatever its size; images are never pooled. The interval resamples
    the known images once for all sets of a group, because they share them.
    """
    metrics: Metrics = {}
    for group, names in (("near", context.near), ("far", context.far)):
        if not names:
            continue
        # Sorted, so that the order of the images does not change what is resampled.
        known, novel = np.sort(found[KNOWN]), [np.sort(found[name]) for name in names]
        value = float(np.mean([auroc(known, scores) for scores in novel]))
        sizes = [len(known), *(len(scores) for scores in novel)]
        ci = None
        if min(sizes) >= FEW:
            seed = content_seed(group, detector, known, *novel)
            (drawn,) = bootstrap(_MeanArea(known, novel), sizes, seed=seed, resamples=resamples)
            # Where no resample can differ that is not certainty.
            ci = drawn if drawn[0] < drawn[1] else None
        method: CiMethod = "bootstrap" if ci else ""
        name = f"{group}_mean.{detector}.auroc"
        metrics[name] = Metric(value, ci, sum(sizes), ci_method=method)
    return metrics


def group_names(context: Context, *more: str) -> list[str]:
    """Names of what ``group_means`` may give."""
    groups = [g for g, names in (("near", context.near), ("far", context.far)) if names]
    return [
        f"{group}_mean.{detector}.auroc"
        for group in groups
        for detector in (*context.options.detectors, *more)
    ]


def full_spectrum(context: Context, detector: str, found: SetScores) -> Metrics:
    """AUROC where shifted known images count as known (Yang et al., IJCV 2023).

    ``full_spectrum.<set>.<detector>.auroc`` has the test images and all shifted ones on the
    known side; ``shifted.<shifted set>.<detector>.auroc`` is how far a detector tells a shifted
    set from the test images, where 0.5 is best.
    """
    if not context.shifted:
        return {}
    known = np.concatenate([found[KNOWN], *(found[name] for name in context.shifted)])
    pairs = {f"full_spectrum.{name}": (known, found[name]) for name in context.ood}
    pairs |= {f"shifted.{name}": (found[KNOWN], found[name]) for name in context.shifted}
    metrics: Metrics = {}
    for name, (low, high) in pairs.items():
        area, n = delong(low, high), len(low) + len(high)
        metrics[f"{name}.{detector}.auroc"] = Metric(
            area.value,
            area.ci,
            n,
            higher_is_better=not name.startswith("shifted."),
            ci_method=area.method,
        )
    return metrics


def full_spectrum_names(context: Context, *more: str) -> list[str]:
    """Names of what ``full_spectrum`` may give."""
    if not context.shifted:
        return []
    sets = [f"full_spectrum.{name}" for name in context.ood]
    sets += [f"shifted.{name}" for name in context.shifted]
    return [f"{s}.{d}.auroc" for s in sets for d in (*context.options.detectors, *more)]


def broken_promise(threshold: Threshold, known: Scores) -> list[str]:
    """A warning if the test images contradict the share that a threshold should accept.

    The threshold has an interval of its own, so the share is tried at both of its ends: only
    where even the more favourable end is out of the sampling error, something is wrong.

    Args:
        threshold: Of the bundle.
        known: (n,) scores of images that chose nothing.
    """
    n = len(known)
    most = clopper_pearson(int(np.count_nonzero(known <= threshold.high)), n)[1]
    least = clopper_pearson(int(np.count_nonzero(known <= threshold.low)), n)[0]
    if least <= threshold.accepted <= most:
        return []
    accepted = float(np.mean(known <= threshold.value))
    return [
        f"the bundle's threshold should accept {threshold.accepted:.0%} of known images, and "
        f"accepts {accepted:.1%} of the {n} test images: they are unlike those it was chosen "
        "on, or the served score is another one"
    ]


class _MeanArea:
    """The mean AUROC of several novel sets against one known set, by resample counts."""

    def __init__(self, known: Scores, novel: Sequence[Scores]) -> None:
        order = np.argsort(known, kind="stable")
        ordered = known[order]
        self._order = order
        self._below = [
            (np.searchsorted(ordered, s, side="left"), np.searchsorted(ordered, s, "right"))
            for s in novel
        ]

    def __call__(self, counts: Sequence[Counts]) -> npt.NDArray[np.float64]:
        total = np.append(0.0, np.cumsum(counts[0][self._order]))
        areas = [
            float(weights @ (total[left] + total[right])) / (2 * total[-1] * weights.sum())
            for (left, right), weights in zip(self._below, counts[1:], strict=True)
        ]
        return np.array([np.mean(areas)])
