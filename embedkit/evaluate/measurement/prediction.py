"""Tasks that predict the class of each test image: the model beside the baselines."""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import numpy.typing as npt

from embedkit.evaluate.context import Context, Which
from embedkit.evaluate.measurement.checks import class_problem, leakage
from embedkit.evaluate.measurement.partial import attempt
from embedkit.evaluate.statistics import Metrics, accuracy
from embedkit.evaluate.task import TaskResult, skipped
from embedkit.types import Labels

__all__ = ["Predictions", "report_predictions"]

Predictions = Mapping[str, Labels]
"""Predicted class of each test image, by the name of the metric that it gives."""


def report_predictions(
    task: str,
    context: Context,
    predict: Callable[[Which], Predictions],
    *,
    warnings: tuple[str, ...] = (),
) -> TaskResult:
    """Accuracy of the predictions with the served embeddings and with those of the baselines.

    Items are ``labels``, ``predictions`` (or ``predictions_<metric>`` where a task has several)
    and the same with ``_<baseline>``.
    """
    problem = class_problem(context)
    if problem:
        return skipped(task, problem)
    labels = np.asarray(context.test.labels)
    notes = [*leakage(context), *warnings]
    items: dict[str, npt.NDArray[np.generic]] = {"labels": labels}
    served = predict("served")
    items |= _items(served, "")
    baselines: dict[str, Metrics] = {}
    for name in context.baselines:
        found = attempt(f"baseline {name}", partial(predict, name), notes)
        if found is not None:
            items |= _items(found, f"_{name}")
            baselines[name] = _metrics(found, labels)
    return TaskResult(
        task,
        _metrics(served, labels),
        baselines,
        cost={"images": len(context.train) + len(context.test)},
        warnings=tuple(notes),
        items=items,
    )


def _metrics(predictions: Predictions, labels: Labels) -> Metrics:
    return {name: accuracy(found == labels) for name, found in predictions.items()}


def _items(predictions: Predictions, suffix: str) -> dict[str, npt.NDArray[np.generic]]:
    several = len(predictions) > 1
    return {
        f"predictions_{name}{suffix}" if several else f"predictions{suffix}": found
        for name, found in predictions.items()
    }
