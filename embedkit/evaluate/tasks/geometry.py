"""How do the embeddings lie in their space?"""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from embedkit.data.dataset import Dataset
from embedkit.evaluate.context import BASELINES, Context, Which
from embedkit.evaluate.measurement.checks import class_problem
from embedkit.evaluate.measurement.means import mean_metric
from embedkit.evaluate.measurement.partial import attempt
from embedkit.evaluate.measurement.pixels.views import augmented
from embedkit.evaluate.statistics import Metric, Metrics, wilson
from embedkit.evaluate.task import Figure, TaskResult, tasks
from embedkit.measures.collapse import neural_collapse, tolerance
from embedkit.measures.geometry import effective_rank, uniformity
from embedkit.measures.hubness import (
    neighbour_purity,
    neighbours_of_each,
    occurrences,
    skewness,
)
from embedkit.measures.similarity import linear_cka
from embedkit.measures.spectrum import decay, eigenvalues, lidar, participation_ratio
from embedkit.types import Embeddings

__all__ = ["Geometry"]

_NEIGHBOURS = 10
_OTHERS: tuple[Which, ...] = (*BASELINES, "twin")
_CLASSES = ("tolerance", "nc1", "nc2_norms", "nc2_angles", "nc4_disagreement", "purity_k10")
_LABEL_FREE = ("uniformity", "rankme", "participation_ratio", "spectrum_decay", "hubness_k10")


@tasks.register("geometry")
@dataclass(frozen=True)
class Geometry:
    """Spread, rank, hubs, invariance and collapse of the test embeddings.

    Without labels: ``uniformity``, ``rankme``, ``participation_ratio``, ``spectrum_decay``,
    ``hubness_k10``; with random views of up to ``view_images`` test images also ``alignment``
    and ``lidar``. With labels: ``tolerance``, the measures of neural collapse ``nc1``,
    ``nc2_norms``, ``nc2_angles`` and ``nc4_disagreement``, and ``purity_k10``. Against the
    other models on the same images: ``cka.<baseline>``, ``cka.twin``.

    Only ``alignment`` and ``purity_k10`` are means over images and have an interval. Items:
    ``eigenvalues``, ``occurrences_k10``, ``alignment``.

    Attributes:
        views: Views of each image, at least 2.
    """

    views: int = 4

    def metric_names(self, context: Context) -> tuple[str, ...]:
        """Every metric that it may give here."""
        cka = tuple(f"cka.{which}" for which in _OTHERS)
        return (*_LABEL_FREE, "alignment", "lidar", *_CLASSES, *cka)

    def run(self, context: Context) -> TaskResult:
        """Measure what can be measured."""
        warnings: list[str] = []
        problem = class_problem(context)
        if problem:
            warnings.append(f"no {', '.join(_CLASSES)}: {problem}")
        z = context.embeddings("served", context.test)
        spectrum = eigenvalues(z)
        metrics = _metrics(context, z, with_classes=not problem)
        k = min(_NEIGHBOURS, len(z) - 1)
        items: dict[str, npt.NDArray[np.generic]] = {
            "eigenvalues": spectrum,
            "occurrences_k10": occurrences(neighbours_of_each(z, k)),
        }
        found = attempt("alignment, lidar", lambda: self._views(context), warnings)
        if found is not None:
            metrics |= found[0]
            items["alignment"] = found[1]
        baselines: dict[str, Metrics] = {}
        for which in _OTHERS:
            work = partial(context.embeddings, which, context.test)
            other = attempt(f"cka.{which}", work, warnings)
            if other is None:
                continue
            metrics[f"cka.{which}"] = Metric(linear_cka(z, other), None, len(z), "")
            if which in BASELINES:
                baselines[which] = _metrics(context, other, with_classes=not problem)
        return TaskResult(
            "geometry",
            metrics,
            baselines,
            cost={"images": len(context.test) + self.views * len(_part(context))},
            warnings=tuple(warnings),
            items=items,
            figures={"spectrum": _spectrum(spectrum)} if spectrum[0] > 0 else {},
        )

    def _views(self, context: Context) -> tuple[Metrics, npt.NDArray[np.float64]]:
        """Alignment and LiDAR, and the squared distance of each image's first two views."""
        part = _part(context)
        images = part.arrays(context.spec)
        made = [
            Dataset(f"view {v}", augmented(images, ids=part.ids, seed=context.seed + v))
            for v in range(self.views)
        ]
        z = np.stack([context.embeddings("served", data) for data in made], axis=1)
        squares = np.sum((z[:, 0] - z[:, 1]).astype(np.float64) ** 2, axis=1)
        alignment = mean_metric(squares, unit="", higher_is_better=False)
        return {"alignment": alignment, "lidar": _count(lidar(z), len(part))}, squares


def _part(context: Context) -> Dataset:
    """The test images of which views are made, a seeded choice."""
    count = min(context.options.view_images, len(context.test))
    order = np.random.default_rng(context.seed).permutation(len(context.test))
    return context.test.subset(np.sort(order[:count]))


def _metrics(context: Context, z: Embeddings, *, with_classes: bool) -> Metrics:
    """Everything that needs nothing but the embeddings and the labels."""
    n = len(z)
    spectrum = eigenvalues(z)
    neighbours = neighbours_of_each(z, min(_NEIGHBOURS, n - 1))
    metrics: Metrics = {
        "uniformity": Metric(uniformity(z), None, n, "nats", higher_is_better=False),
        "rankme": _count(effective_rank(z), n),
        "participation_ratio": _count(participation_ratio(spectrum), n),
        "spectrum_decay": Metric(decay(spectrum), None, n, "", higher_is_better=False),
        "hubness_k10": Metric(
            skewness(occurrences(neighbours)), None, n, "", higher_is_better=False
        ),
    }
    if not with_classes:
        return metrics
    labels = np.asarray(context.test.labels)
    collapse = neural_collapse(z, labels)
    values = {
        "nc1": collapse.within,
        "nc2_norms": collapse.norms,
        "nc2_angles": collapse.angles,
    }
    same = tolerance(z, labels)
    metrics |= {
        name: Metric(value, None, n, "", higher_is_better=False)
        for name, value in values.items()
        if math.isfinite(value)
    }
    if math.isfinite(collapse.disagreement):
        count = round(collapse.disagreement * n)
        metrics["nc4_disagreement"] = Metric(
            count / n, wilson(count, n), n, "fraction", False, "wilson"
        )
    if math.isfinite(same):
        metrics["tolerance"] = Metric(same, None, n, "cosine")
    metrics["purity_k10"] = mean_metric(neighbour_purity(neighbours, labels))
    return metrics


def _count(value: float, n: int) -> Metric:
    return Metric(value, None, n, "directions")


def _spectrum(spectrum: npt.NDArray[np.float64]) -> Figure:
    """Share of the variance over the rank of the eigenvalue."""
    shares = (spectrum / spectrum.sum()).tolist()
    return {
        "kind": "curve",
        "title": "Variance of the embeddings by direction",
        "x": list(range(1, len(shares) + 1)),
        "series": {"share of the variance": {"y": shares, "lo": shares, "hi": shares}},
        "xlabel": "direction, by variance",
        "ylabel": "share of the variance",
    }
