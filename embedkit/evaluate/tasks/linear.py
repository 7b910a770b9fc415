"""Can a linear classifier on the embeddings tell the classes apart?"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from embedkit.evaluate.context import BASELINES, Context, Which
from embedkit.evaluate.measurement.checks import class_problem, leakage
from embedkit.evaluate.measurement.partial import attempt
from embedkit.evaluate.statistics import Metrics, accuracy
from embedkit.evaluate.task import TaskResult, skipped, tasks
from embedkit.runtime.probe import fit_probe
from embedkit.types import Labels

__all__ = ["Linear"]


@tasks.register("linear")
@dataclass(frozen=True)
class Linear:
    """Accuracy of logistic regression on the training embeddings.

    Metrics: ``top1``. Items: ``predictions`` and ``labels`` of the test images, and
    ``predictions_<baseline>``.
    """

    def metric_names(self, context: Context) -> tuple[str, ...]:
        """Every metric that it may give here."""
        return ("top1",)

    def run(self, context: Context) -> TaskResult:
        """Fit on train, score on test, for the model and the baselines."""
        problem = class_problem(context)
        if problem:
            return skipped("linear", problem)
        labels = np.asarray(context.test.labels)
        items: dict[str, npt.NDArray[np.generic]] = {"labels": labels}
        rows = _rows(context)
        warnings = list(leakage(context))
        if len(rows) < len(context.train):
            warnings.append(f"fitted on {len(rows)} of {len(context.train)} training images")
        items["predictions"] = _predict(context, "served", rows)
        baselines: dict[str, Metrics] = {}
        for name in BASELINES:
            predicted = attempt(
                f"baseline {name}", partial(_predict, context, name, rows), warnings
            )
            if predicted is not None:
                items[f"predictions_{name}"] = predicted
                baselines[name] = {"top1": accuracy(predicted == labels)}
        return TaskResult(
            "linear",
            {"top1": accuracy(items["predictions"] == labels)},
            baselines,
            cost={"images": len(context.train) + len(context.test)},
            warnings=tuple(warnings),
            items=items,
        )


def _rows(context: Context) -> npt.NDArray[np.int64]:
    """The training images that are fitted on, ascending; the same for model and baselines."""
    labels = np.asarray(context.train.labels)
    limit = context.options.probe_images
    if not 0 < limit < len(labels):
        return np.arange(len(labels))
    rng = np.random.default_rng(context.seed)
    order = rng.permutation(len(labels))
    ranks = np.empty(len(labels), np.float64)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        ranks[members] = (np.arange(len(members)) + rng.random()) / len(members)
    return np.sort(np.argsort(ranks, kind="stable")[:limit])


def _predict(context: Context, which: Which, rows: npt.NDArray[np.int64]) -> Labels:
    """Predicted class of each test image."""
    train = context.embeddings(which, context.train)
    test = context.embeddings(which, context.test)
    context.progress(f"{which}: logistic regression", 0.5)
    probe = fit_probe(
        train[rows],
        np.asarray(context.train.labels)[rows],
        class_names=context.train.class_names,
        seed=context.seed,
    )
    predictions: Labels = probe.head.logits(test).argmax(axis=1)
    return predictions
