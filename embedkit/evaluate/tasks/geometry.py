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
from embedkit.evaluate.statistics import (
    FEW,
    GROUPS,
    Metric,
    Metrics,
    jackknife_metric,
    random_groups,
    wilson,
)
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
from embedkit.measures.without import (
    cka_without,
    hubness_without,
    measure_without,
    spectra_without,
    uniformity_without,
)
from embedkit.perturb.randomness import keys_of
from embedkit.types import Embeddings, Labels

__all__ = ["Geometry"]

_NEIGHBOURS = 10
_MOST_DIMENSIONS = 1024
_DIRECTIONS = "directions"
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

    Means over images (``alignment``, ``purity_k10``) have Student's interval, all others that
    of the jackknife that leaves out a twentieth of the images at a time: for what other images,
    as many, would give. A model of more than 1,024 dimensions, as raw pixels may be, has none
    for ``rankme``, ``participation_ratio`` and ``spectrum_decay``, and none for ``lidar``: 20
    eigenvalue problems of that size take minutes. Items: ``eigenvalues``, ``occurrences_k10``,
    ``alignment``.

    Attributes:
        views: Views of each image, at least 2.
    """

    views: int = 4

    def metric_names(self, context: Context) -> tuple[str, ...]:
        """Every metric that it may give here."""
        cka = tuple(f"cka.{which}" for which in _others(context))
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
        for which in _others(context):
            work = partial(context.embeddings, which, context.test)
            other = attempt(f"cka.{which}", work, warnings)
            if other is None:
                continue
            metrics[f"cka.{which}"] = jackknife_metric(
                linear_cka(z, other),
                cka_without(z, other, _groups(context)) if len(z) >= FEW else None,
                len(z),
            )
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
        alignment = mean_metric(squares, unit="", higher_is_better=False, least=0, most=4)
        groups, without = random_groups(keys_of(part.ids, context.seed)), None
        if len(part) >= FEW and z.shape[2] <= _MOST_DIMENSIONS:
            without = measure_without(lambda rows: lidar(z[rows]), groups)
        found = jackknife_metric(lidar(z), without, len(part), unit=_DIRECTIONS, least=0.0)
        return {"alignment": alignment, "lidar": found}, squares


def _others(context: Context) -> tuple[Which, ...]:
    """The models that the served one is compared with."""
    return (*context.baselines, "twin")


def _part(context: Context) -> Dataset:
    """The test images of which views are made, a seeded choice."""
    count = min(context.options.view_images, len(context.test))
    order = np.random.default_rng(context.seed).permutation(len(context.test))
    return context.test.subset(np.sort(order[:count]))


def _groups(context: Context) -> npt.NDArray[np.int64]:
    """Which twentieth of the test images each belongs to."""
    return random_groups(keys_of(context.test.ids, context.seed))


def _metrics(context: Context, z: Embeddings, *, with_classes: bool) -> Metrics:
    """Everything that needs nothing but the embeddings and the labels."""
    n, groups = len(z), _groups(context)
    spectrum = eigenvalues(z)
    # Some more than count, for the intervals.
    neighbours = neighbours_of_each(z, min(3 * _NEIGHBOURS, n - 1))
    k = min(_NEIGHBOURS, n - 1)
    without: dict[str, npt.NDArray[np.float64]] = {}
    if n >= FEW:
        without["uniformity"] = uniformity_without(z, groups)
        without["hubness"] = hubness_without(neighbours, groups, k)
        if z.shape[1] <= _MOST_DIMENSIONS:
            without |= spectra_without(z, groups)
    value = jackknife_metric
    rank, ratio = effective_rank(z), participation_ratio(spectrum)
    hubs = skewness(occurrences(neighbours[:, :k]))
    own = without.get
    metrics: Metrics = {
        "uniformity": value(
            uniformity(z), own("uniformity"), n, unit="nats", higher_is_better=False
        ),
        "rankme": value(rank, own("rankme"), n, unit=_DIRECTIONS, least=0.0),
        "participation_ratio": value(
            ratio, own("participation_ratio"), n, unit=_DIRECTIONS, least=0.0
        ),
        "spectrum_decay": value(decay(spectrum), own("decay"), n, higher_is_better=False),
        "hubness_k10": value(hubs, own("hubness"), n, higher_is_better=False),
    }
    if with_classes:
        labels = np.asarray(context.test.labels)
        metrics |= _class_metrics(z, labels, groups)
        metrics["purity_k10"] = mean_metric(
            neighbour_purity(neighbours[:, :k], labels), least=0, most=1
        )
    return metrics


def _class_metrics(z: Embeddings, labels: Labels, groups: npt.NDArray[np.int64]) -> Metrics:
    """Neural collapse and tolerance, as far as the classes have images enough."""
    n, classes = len(z), len(np.unique(labels))
    collapse, same = neural_collapse(z, labels), tolerance(z, labels)
    values = {
        "nc1": collapse.within,
        "nc2_norms": collapse.norms,
        "nc2_angles": collapse.angles,
    }
    metrics: Metrics = {}
    without = np.full((GROUPS, len(values) + 1), np.nan)
    for g in range(GROUPS if n >= FEW else 0):
        rows = groups != g
        # Without one of the classes it would be another measure.
        if len(np.unique(labels[rows])) == classes:
            left = neural_collapse(z[rows], labels[rows])
            whole = tolerance(z[rows], labels[rows])
            without[g] = left.within, left.norms, left.angles, whole
    for column, (name, value) in enumerate(values.items()):
        if math.isfinite(value):
            metrics[name] = jackknife_metric(
                value, without[:, column], n, higher_is_better=False, least=0.0
            )
    if math.isfinite(collapse.disagreement):
        count = round(collapse.disagreement * n)
        metrics["nc4_disagreement"] = Metric(
            count / n, wilson(count, n), n, "fraction", False, "wilson"
        )
    if math.isfinite(same):
        metrics["tolerance"] = jackknife_metric(same, without[:, -1], n, unit="cosine")
    return metrics


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
