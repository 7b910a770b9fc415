"""Is the served model the model that was trained?"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from embedkit.bundle import Bundle
from embedkit.data.dataset import Dataset
from embedkit.errors import NotFound
from embedkit.evaluate.context import Context
from embedkit.evaluate.measurement.checks import class_problem
from embedkit.evaluate.measurement.partial import attempt
from embedkit.evaluate.measurement.sameness.batches import Batched, measure_batches
from embedkit.evaluate.measurement.sameness.decisions import DECISIONS, Decisions
from embedkit.evaluate.statistics import Metric, Metrics
from embedkit.evaluate.task import Figure, TaskResult, skipped, tasks
from embedkit.runtime.parity import Parity, compare, difference
from embedkit.types import Embedder, Embeddings

__all__ = ["ParityOfRuntimes"]

Models = Mapping[str, Callable[[], Embedder]]

PAIRS = (("torch", "local"), ("local", "served"), ("torch", "served"))
RUNTIMES = ("torch", "local", "served")
# No set has a blank in its name.
_KNOWN = "test images"
_NUMBERS = ("max_abs_error", "min_cosine")


@tasks.register("parity")
@dataclass(frozen=True)
class ParityOfRuntimes:
    """Difference between the torch twin, a local session and the served model.

    Numbers come from the same uint8 images in batches of several sizes, decisions from the
    served training embeddings: the weighted vote of 20 neighbours, the 10 nearest, and the
    AUROC of the ``knn`` detector. Each precision of the bundle that is not the served one is
    compared with it. Each model is also compared with itself, since the images that share a
    batch should not matter: the same image alone and in calls of 2, 7 and 64 (``batch_size``),
    and in calls of 8 among other images each time (``batch_neighbours``). Where the test images
    are files, ``files_vs_pixels`` compares the server's answer to the files with its answer to
    the pixels decoded here.

    Metrics: ``<pair>.max_abs_error``, ``.min_cosine``, ``.knn_flips``, ``.neighbour_overlap``
    and ``.<set>.auroc_change`` for the pairs ``torch_vs_local``, ``local_vs_served``,
    ``torch_vs_served`` and ``served_vs_<precision>``; ``<model>.batch_size.*`` and
    ``<model>.batch_neighbours.*`` for ``torch``, ``local`` and ``served``.
    """

    def metric_names(self, context: Context) -> tuple[str, ...]:
        """Every metric that it may give here."""
        areas = [f"{name}.auroc_change" for name in context.ood]
        pairs = [*PAIRS, *(("served", p) for p in _other_precisions(context))]
        names = [
            f"{a}_vs_{b}.{kind}" for a, b in pairs for kind in (*_NUMBERS, *DECISIONS, *areas)
        ]
        names += [
            f"{model}.{what}.{kind}"
            for model in RUNTIMES
            for what in ("batch_size", "batch_neighbours")
            for kind in (*_NUMBERS, *DECISIONS)
        ]
        return (*names, *(f"files_vs_pixels.{kind}" for kind in _NUMBERS))

    def run(self, context: Context) -> TaskResult:
        """Compare every pair that is there, and every model with itself."""
        if context.bundle is None and context.local is None:
            return skipped("parity", f"expected a bundle, got none: {context.without_bundle}")
        warnings: list[str] = []
        problem = class_problem(context)
        if problem:
            warnings.append(f"no knn_flips: {problem}")
        decisions = Decisions.of(context, with_classes=not problem)
        models, parts = _models(context), _parts(context)
        metrics: Metrics = {}
        curves: dict[str, Parity] = {}
        for pair in [*PAIRS, *(("served", p) for p in _other_precisions(context))]:
            name = f"{pair[0]}_vs_{pair[1]}"
            work = partial(_pair, context, (models[pair[0]], models[pair[1]]), parts, decisions)
            found = attempt(name, work, warnings)
            if found is not None:
                curves[name] = found[0]
                metrics |= {f"{name}.{key}": metric for key, metric in found[1].items()}
        for name in RUNTIMES if curves else ():
            work_alone = partial(_alone, context, name, models[name], parts[_KNOWN], decisions)
            metrics |= attempt(f"batches of {name}", work_alone, warnings) or {}
        files = attempt("files_vs_pixels", partial(_files, context, parts[_KNOWN]), warnings)
        return TaskResult(
            "parity",
            metrics | (files or {}),
            cost={"images": sum(map(len, parts.values()))},
            status="ok" if metrics else "failed",
            warnings=tuple(warnings),
            figures={"error": _curve(curves)} if curves else {},
        )


def _models(context: Context) -> Models:
    """How each model is reached; a precision's graph is loaded once."""
    models: dict[str, Callable[[], Embedder]] = {
        "torch": partial(context.embedder, "twin"),
        "local": partial(context.embedder, "local"),
        "served": partial(context.embedder, "served"),
    }
    if context.bundle is not None:
        for precision in _other_precisions(context):
            models[precision] = partial(_graph, context.bundle, precision)
    return models


def _other_precisions(context: Context) -> tuple[str, ...]:
    """The bundle's graphs that are not the served one."""
    bundle = context.bundle
    if bundle is None:
        return ()
    digests = {p: bundle.model_digest(p) for p in bundle.precisions}
    if context.served.digest not in digests.values():
        return ()
    return tuple(p for p, digest in digests.items() if digest != context.served.digest)


def _graph(bundle: Bundle, precision: str) -> Embedder:
    try:
        from embedkit.runtime.session import Session
    except ModuleNotFoundError as error:
        raise NotFound(f"expected onnxruntime for {precision}, got none") from error
    digest = bundle.model_digest(precision)
    return Session(bundle.graph(precision), digest, bundle.manifest.input)


def _parts(context: Context) -> dict[str, Dataset]:
    """The test and novel images that are compared, a seeded choice of each set."""
    chosen = {}
    for name, dataset in {_KNOWN: context.test, **context.ood}.items():
        count = min(context.options.parity_images, len(dataset))
        order = np.random.default_rng(context.seed).permutation(len(dataset))
        chosen[name] = dataset.subset(np.sort(order[:count]))
    return chosen


def _pair(
    context: Context,
    pair: tuple[Callable[[], Embedder], Callable[[], Embedder]],
    parts: Mapping[str, Dataset],
    decisions: Decisions,
) -> tuple[Parity, Metrics]:
    """Two models on the same pixels, in numbers and in decisions."""
    first, second = (make() for make in pair)
    pixels = {name: part.arrays(context.spec) for name, part in parts.items()}
    context.progress(f"parity of {len(pixels[_KNOWN])} images", 0.5)
    numbers = compare(first, second, pixels[_KNOWN])
    metrics = _as_metrics(numbers.max_abs_error, numbers.min_cosine, numbers.n)
    one, other = (
        {name: model.embed(images) for name, images in pixels.items()}
        for model in (first, second)
    )
    metrics |= decisions.changes(one[_KNOWN], other[_KNOWN])
    return numbers, metrics | decisions.area_changes(one, other, _KNOWN)


def _alone(
    context: Context,
    name: str,
    make: Callable[[], Embedder],
    part: Dataset,
    decisions: Decisions,
) -> Metrics:
    """One model against itself, by the size and the content of a call."""
    context.progress(f"batches of {name}", 0.5)
    rng = np.random.default_rng([context.seed, 1])
    found: Batched = measure_batches(make(), part.arrays(context.spec), rng)
    first, *others = found.companies
    compared = {
        "batch_size": (found.alone, list(found.sizes.values())),
        "batch_neighbours": (first, others),
    }
    metrics: Metrics = {}
    for what, (reference, versions) in compared.items():
        worst = _worst(decisions, reference, versions)
        metrics |= {f"{name}.{what}.{key}": metric for key, metric in worst.items()}
    return metrics


def _worst(decisions: Decisions, reference: Embeddings, versions: list[Embeddings]) -> Metrics:
    """The largest change over several versions, metric by metric."""
    found = []
    for z in versions:
        error, cosine = difference(reference, z)
        numbers = _as_metrics(error, cosine, len(z))
        found.append(numbers | decisions.changes(reference, z))

    def rank(metric: Metric) -> float:
        return metric.value if metric.higher_is_better else -metric.value

    return {key: min((metrics[key] for metrics in found), key=rank) for key in found[0]}


def _files(context: Context, part: Dataset) -> Metrics:
    """The served model on files against the served model on pixels decoded here."""
    if part.image_shape is not None:
        return {}
    pixels = context.served.embed(part.arrays(context.spec))
    error, cosine = difference(context.embeddings("served", part), pixels)
    metrics = _as_metrics(error, cosine, len(part))
    return {f"files_vs_pixels.{key}": metric for key, metric in metrics.items()}


def _as_metrics(error: float, cosine: float, n: int) -> Metrics:
    """Extremes over the images compared; they have no sampling interval."""
    return {
        "max_abs_error": Metric(error, None, n, "", higher_is_better=False),
        "min_cosine": Metric(cosine, None, n, "cosine"),
    }


def _curve(parities: dict[str, Parity]) -> Figure:
    sizes = [batch.batch_size for batch in next(iter(parities.values())).batches]
    return {
        "kind": "curve",
        "title": "Largest difference of a coordinate by batch size",
        "x": sizes,
        "series": {
            name: {
                "y": (errors := [b.max_abs_error for b in p.batches]),
                "lo": errors,
                "hi": errors,
            }
            for name, p in parities.items()
        },
        "xlabel": "images per call",
        "ylabel": "largest absolute difference",
    }
