"""Is the served model the model that was trained?"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from embedkit.data.dataset import Dataset
from embedkit.evaluate.context import Context, Which
from embedkit.evaluate.measurement.checks import class_problem
from embedkit.evaluate.measurement.partial import attempt
from embedkit.evaluate.statistics import Metric, Metrics, clopper_pearson
from embedkit.evaluate.task import Figure, TaskResult, skipped, tasks
from embedkit.measures.knn import weighted_knn
from embedkit.runtime.parity import Parity, compare, difference

__all__ = ["ParityOfRuntimes"]

Pair = tuple[Which, Which]

PAIRS: dict[str, Pair] = {
    "torch_vs_local": ("twin", "local"),
    "local_vs_served": ("local", "served"),
    "torch_vs_served": ("twin", "served"),
}


@tasks.register("parity")
@dataclass(frozen=True)
class ParityOfRuntimes:
    """Difference between the torch twin, a local session and the served model.

    Numbers come from the same uint8 images in batches of several sizes, decisions from the
    weighted vote of 20 neighbours among the served training embeddings. Where the test images
    are files, ``files_vs_pixels`` compares the server's answer to the files with its answer to
    the pixels decoded here.

    Metrics: ``<pair>.max_abs_error``, ``<pair>.min_cosine``, ``<pair>.knn_flips`` for the pairs
    ``torch_vs_local``, ``local_vs_served`` and ``torch_vs_served``.
    """

    def metric_names(self, context: Context) -> tuple[str, ...]:
        """Every metric that it may give here."""
        kinds = ("max_abs_error", "min_cosine")
        names = [f"{pair}.{kind}" for pair in PAIRS for kind in (*kinds, "knn_flips")]
        return (*names, *(f"files_vs_pixels.{kind}" for kind in kinds))

    def run(self, context: Context) -> TaskResult:
        """Compare every pair that is there."""
        if context.bundle is None and context.local is None:
            return skipped("parity", f"expected a bundle, got none: {context.without_bundle}")
        warnings: list[str] = []
        part = _part(context)
        metrics: Metrics = {}
        curves: dict[str, Parity] = {}
        flips = class_problem(context)
        if flips:
            warnings.append(f"no knn_flips: {flips}")
        for name, pair in PAIRS.items():
            found = attempt(name, partial(_numbers, context, pair, part), warnings)
            if found is None:
                continue
            curves[name] = found
            metrics |= _as_metrics(name, found.max_abs_error, found.min_cosine, found.n)
            if not flips:
                metrics[f"{name}.knn_flips"] = _flips(context, pair, part)
        files = attempt("files_vs_pixels", partial(_files, context, part), warnings)
        return TaskResult(
            "parity",
            metrics | (files or {}),
            cost={"images": len(part)},
            status="ok" if metrics else "failed",
            warnings=tuple(warnings),
            figures={"error": _curve(curves)} if curves else {},
        )


def _part(context: Context) -> Dataset:
    """The test images that are compared, a seeded choice."""
    count = min(context.options.parity_images, len(context.test))
    order = np.random.default_rng(context.seed).permutation(len(context.test))
    return context.test.subset(np.sort(order[:count]))


def _numbers(context: Context, pair: Pair, part: Dataset) -> Parity:
    first, second = (context.embedder(which) for which in pair)
    context.progress(f"{pair[0]} against {pair[1]}", 0.5)
    return compare(first, second, part.arrays(context.spec))


def _flips(context: Context, pair: Pair, part: Dataset) -> Metric:
    """How many images the two give different classes."""
    bank = context.embeddings("served", context.train)
    labels = np.asarray(context.train.labels)
    classes = len(context.train.class_names)
    first, second = (
        weighted_knn(bank, labels, context.embeddings(which, part), ks=(20,), classes=classes)[
            20
        ]
        for which in pair
    )
    n, flipped = len(part), int(np.count_nonzero(first != second))
    low, high = clopper_pearson(flipped, n)
    return Metric(
        flipped,
        (low * n, high * n),
        n,
        unit="count",
        higher_is_better=False,
        ci_method="clopper_pearson",
    )


def _files(context: Context, part: Dataset) -> Metrics:
    """The served model on files against the served model on pixels decoded here."""
    if part.image_shape is not None:
        return {}
    pixels = context.served.embed(part.arrays(context.spec))
    error, cosine = difference(context.embeddings("served", part), pixels)
    return _as_metrics("files_vs_pixels", error, cosine, len(part))


def _as_metrics(name: str, error: float, cosine: float, n: int) -> Metrics:
    """Extremes over the images compared; they have no sampling interval."""
    return {
        f"{name}.max_abs_error": Metric(error, None, n, "", higher_is_better=False),
        f"{name}.min_cosine": Metric(cosine, None, n, "cosine"),
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
