"""Is an image of another class noticed if only one class is known?"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.detect.detector import Detector, Observation, detectors
from embedkit.errors import InvalidInput
from embedkit.evaluate.context import Context
from embedkit.evaluate.measurement.checks import class_problem, leakage
from embedkit.evaluate.statistics import Metric, Metrics, delong
from embedkit.evaluate.task import TaskResult, skipped, tasks
from embedkit.types import Embeddings, Labels, Scores

__all__ = ["OneClass"]

_ALWAYS = "one_class_knn"


@tasks.register("one_class")
@dataclass(frozen=True)
class OneClass:
    """Each class in turn is the known one, and the test images of all others are novel.

    The protocol of CSI and MSAD. Detectors that look at embeddings alone are fitted on the
    training images of one class, which is all that they are told: those of
    ``context.options.detectors``, and ``one_class_knn``.

    Metrics: ``<class>.<detector>.auroc`` and ``mean.<detector>.auroc``, the mean over classes
    between the means of their intervals' ends, which hold it though the classes share their
    images. Items: ``<detector>.scores`` (classes, test images), and ``labels``.
    """

    def metric_names(self, context: Context) -> tuple[str, ...]:
        """Every metric that it may give here."""
        names = [*_names(context), "mean"]
        return tuple(f"{name}.{d}.auroc" for d in _detectors(context) for name in names)

    def run(self, context: Context) -> TaskResult:
        """Fit on one class after the other."""
        problem = class_problem(context)
        if problem:
            return skipped("one_class", problem)
        train = context.embeddings("served", context.train)
        test = context.embeddings("served", context.test)
        labels = np.asarray(context.train.labels), np.asarray(context.test.labels)
        metrics: Metrics = {}
        warnings = [*leakage(context)]
        items: dict[str, npt.NDArray[np.generic]] = {"labels": labels[1]}
        for name, detector in _detectors(context).items():
            rows = np.full((len(context.train.class_names), len(test)), np.nan)
            found: dict[str, Metric] = {}
            for c, scores in _scores(detector, train, labels[0], test):
                own = labels[1] == c
                context.progress(f"one class: {name}", c / len(rows))
                rows[c] = scores
                if own.any() and not own.all():
                    found[_names(context)[c]] = _area(scores[own], scores[~own])
            if len(found) < len(rows):
                missing = len(rows) - len(found)
                warnings.append(f"{name}: {missing} of {len(rows)} classes have too few images")
            if found:
                metrics |= {f"{c}.{name}.auroc": metric for c, metric in found.items()}
                metrics[f"mean.{name}.auroc"] = _mean(list(found.values()), len(test))
                items[f"{name}.scores"] = rows
        return TaskResult(
            "one_class",
            dict(sorted(metrics.items(), key=lambda pair: not pair[0].startswith("mean."))),
            cost={"images": len(train) + len(test)},
            status="ok" if metrics else "failed",
            warnings=tuple(warnings),
            items=items,
        )


def _detectors(context: Context) -> dict[str, Detector]:
    """The detectors that one class is enough for."""
    names = dict.fromkeys((_ALWAYS, *context.options.detectors))
    made = {name: detectors.get(name)() for name in names}
    # With one class its own distance is the distance to all images: their difference is 0.
    made.pop("relative_mahalanobis", None)
    return {name: found for name, found in made.items() if found.needs == {"embeddings"}}


def _names(context: Context) -> list[str]:
    """The classes as parts of a metric's name."""
    names = context.train.class_names
    return [re.sub(r"[^A-Za-z0-9_-]+", "_", name) or str(c) for c, name in enumerate(names)]


def _scores(
    detector: Detector, train: Embeddings, labels: Labels, test: Embeddings
) -> Iterator[tuple[int, Scores]]:
    """Every class with the scores of all test images, where the class can be fitted."""
    for c in np.unique(labels):
        try:
            fitted = detector.fit(Observation(train[labels == c]))
        except InvalidInput:
            continue
        yield int(c), fitted.score(Observation(test))


def _area(known: Scores, novel: Scores) -> Metric:
    area = delong(known, novel)
    return Metric(area.value, area.ci, len(known) + len(novel), ci_method=area.method)


def _mean(areas: Sequence[Metric], n: int) -> Metric:
    """The mean over classes; each counts alike.

    The classes share their test images. The means of the ends hold the mean as surely as each
    interval holds its own area, whatever they share: no errors add up to more than their sum.
    """
    value = float(np.mean([area.value for area in areas]))
    ends = [area.ci for area in areas if area.ci is not None]
    if len(ends) < len(areas):
        return Metric(value, None, n)
    low, high = np.mean(ends, axis=0)
    return Metric(value, (float(low), float(high)), n, ci_method="mean_of_intervals")
