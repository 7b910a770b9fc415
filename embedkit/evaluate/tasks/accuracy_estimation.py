"""How accurate is it on new data, without labels of that data?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.data.dataset import Dataset
from embedkit.evaluate.context import Context
from embedkit.evaluate.measurement.checks import class_problem
from embedkit.evaluate.measurement.pixels.views import augmented
from embedkit.evaluate.statistics import (
    FEW,
    Counts,
    Interval,
    Metric,
    Metrics,
    accuracy,
    bootstrap,
    content_seed,
)
from embedkit.evaluate.task import TaskResult, skipped, tasks
from embedkit.measures.calibration import scaled
from embedkit.measures.knn import weighted_knn
from embedkit.runtime.probe import fit_probe
from embedkit.types import Labels

__all__ = ["AccuracyEstimation"]

Shares = npt.NDArray[np.float64]

_NEIGHBOURS = 20
_RESAMPLES = 500
_SOURCE = frozenset({"source_confidence", "source_correct"})
_KINDS = ("confidence", "threshold", "agreement", "stability")


@tasks.register("accuracy_estimation")
@dataclass(frozen=True)
class AccuracyEstimation:
    """Four estimates of a linear probe's accuracy on the test images from the images alone.

    The probe is fitted on a part of the training images; the rest is the labelled source.
    ``confidence`` is the source accuracy plus the change of mean confidence (difference of
    confidences, Guillory et al. 2021), ``threshold`` the share of test images above the
    confidence that as many source images pass as are right (ATC, Garg et al. 2022),
    ``agreement`` the share on which the probe and the vote of 20 neighbours agree, and
    ``stability`` the share whose decision survives a random augmentation.

    Metrics: each estimate, ``true`` (the accuracy, which no estimate sees) and
    ``<estimate>_error``, the absolute difference. Items: ``labels``, ``predictions``,
    ``confidence``, ``neighbours``, ``augmented`` (predictions), ``source_confidence``,
    ``source_correct``.

    Attributes:
        source: Share of the training images that is held out as the source.
    """

    source: float = 0.3

    def metric_names(self, context: Context) -> tuple[str, ...]:
        """Every metric that it may give here."""
        return ("true", *_KINDS, *(f"{kind}_error" for kind in _KINDS))

    def run(self, context: Context) -> TaskResult:
        """Fit, estimate, and compare with the truth."""
        problem = class_problem(context)
        if problem:
            return skipped("accuracy_estimation", problem)
        items = self._items(context)
        truth = accuracy(items["predictions"] == items["labels"])
        metrics: Metrics = {"true": truth, **_metrics(items)}
        return TaskResult(
            "accuracy_estimation",
            metrics,
            cost={"images": len(context.train) + 2 * len(context.test)},
            items=dict(items),
        )

    def _items(self, context: Context) -> dict[str, npt.NDArray[np.generic]]:
        """Everything that the estimates are made from."""
        labels = np.asarray(context.train.labels)
        names = context.train.class_names
        z, test = (context.embeddings("served", d) for d in (context.train, context.test))
        fit, source = self._split(labels, context.seed)
        probe = fit_probe(z[fit], labels[fit], class_names=names, seed=context.seed)
        on_source = scaled(probe.head.logits(z[source]).astype(np.float64), 1.0)
        on_test = scaled(probe.head.logits(test).astype(np.float64), 1.0)
        near = weighted_knn(z[fit], labels[fit], test, ks=(_NEIGHBOURS,), classes=len(names))
        images = context.test.arrays(context.spec)
        changed = Dataset(
            "augmented", augmented(images, ids=context.test.ids, seed=context.seed)
        )
        moved = probe.head.logits(context.embeddings("served", changed)).argmax(axis=1)
        return {
            "labels": np.asarray(context.test.labels),
            "predictions": on_test.argmax(axis=1),
            "confidence": on_test.max(axis=1),
            "neighbours": near[_NEIGHBOURS],
            "augmented": moved,
            "source_confidence": on_source.max(axis=1),
            "source_correct": on_source.argmax(axis=1) == labels[source],
        }

    def _split(
        self, labels: Labels, seed: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Rows to fit on and the labelled source; a class of one image is fitted on."""
        rng = np.random.default_rng(seed)
        source = np.zeros(len(labels), bool)
        for label in np.unique(labels):
            rows = rng.permutation(np.flatnonzero(labels == label))
            source[rows[: max(1, int(self.source * len(rows))) if len(rows) > 1 else 0]] = True
        if not source.any():
            source[:] = True
        return np.flatnonzero(~source | source.all()), np.flatnonzero(source)


def _estimates(items: dict[str, npt.NDArray[np.generic]]) -> dict[str, float]:
    right = np.asarray(items["source_correct"], np.float64).mean()
    source: Shares = np.asarray(items["source_confidence"], np.float64)
    target: Shares = np.asarray(items["confidence"], np.float64)
    # As many source images lie below the threshold as are wrong.
    wrong = round((1 - right) * len(source))
    threshold = np.sort(source)[wrong - 1] if wrong else -np.inf
    # Of the images at the threshold itself, the share that is above it in the source.
    at = source == threshold
    spare = 1 - (wrong - np.sum(source < threshold)) / max(int(at.sum()), 1)
    above = np.mean(target > threshold) + spare * np.mean(target == threshold)
    return {
        "confidence": float(np.clip(right + target.mean() - source.mean(), 0, 1)),
        "threshold": float(above),
        "agreement": float(np.mean(items["neighbours"] == items["predictions"])),
        "stability": float(np.mean(items["augmented"] == items["predictions"])),
    }


def _metrics(items: dict[str, npt.NDArray[np.generic]]) -> Metrics:
    """Each estimate and its error, with bootstrap intervals over test and source images."""
    values = _with_errors(items)
    n, sources = len(items["labels"]), len(items["source_correct"])
    ends: list[Interval | None] = [None] * len(values)
    if min(n, sources) >= FEW:

        def statistic(counts: Sequence[Counts]) -> Shares:
            test, source = (np.repeat(np.arange(len(c)), c) for c in counts)
            drawn = {k: v[source if k in _SOURCE else test] for k, v in items.items()}
            return np.array(list(_with_errors(drawn).values()))

        seed = content_seed("estimates", *(items[key] for key in sorted(items)))
        found = bootstrap(statistic, (n, sources), seed=seed, resamples=_RESAMPLES)
        # An absolute difference is larger on resamples; its interval holds it all the same.
        ends = [
            (min(low, value), max(high, value))
            for (low, high), value in zip(found, values.values(), strict=True)
        ]
    return {
        name: Metric(
            *(value, ci, n, "fraction"),
            higher_is_better=not name.endswith("_error"),
            ci_method="" if ci is None else "bootstrap",
        )
        for (name, value), ci in zip(values.items(), ends, strict=True)
    }


def _with_errors(items: dict[str, npt.NDArray[np.generic]]) -> dict[str, float]:
    """The estimates, each followed by its distance from the accuracy."""
    truth = float(np.mean(items["predictions"] == items["labels"]))
    return {
        key: found
        for name, value in _estimates(items).items()
        for key, found in ((name, value), (f"{name}_error", abs(value - truth)))
    }
