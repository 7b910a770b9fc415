"""Can a linear classifier on the embeddings tell the classes apart?"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from embedkit.evaluate.context import Context, Which
from embedkit.evaluate.measurement.checks import class_problem, leakage
from embedkit.evaluate.measurement.partial import attempt
from embedkit.evaluate.measurement.rows import probe_rows
from embedkit.evaluate.statistics import Metrics, accuracy
from embedkit.evaluate.task import TaskResult, skipped, tasks
from embedkit.measures.sgd_probe import sgd_probe
from embedkit.runtime.probe import fit_probe
from embedkit.types import Labels

__all__ = ["Linear"]


@tasks.register("linear")
@dataclass(frozen=True)
class Linear:
    """Accuracy of logistic regression on the training embeddings.

    ``top1`` is fitted by L-BFGS on standardised embeddings, its strength chosen on held-out
    training images; ``top1_sgd`` by momentum SGD on unit vectors without regularisation, its
    rate chosen in the same way.

    Metrics: ``top1``, ``top1_sgd``. Items: ``predictions``, ``predictions_sgd`` and ``labels``
    of the test images, and the predictions with ``_<baseline>``.
    """

    def metric_names(self, context: Context) -> tuple[str, ...]:
        """Every metric that it may give here."""
        return ("top1", "top1_sgd")

    def run(self, context: Context) -> TaskResult:
        """Fit on train, score on test, for the model and the baselines."""
        problem = class_problem(context)
        if problem:
            return skipped("linear", problem)
        labels = np.asarray(context.test.labels)
        items: dict[str, npt.NDArray[np.generic]] = {"labels": labels}
        rows = probe_rows(context)
        warnings = list(leakage(context))
        if len(rows) < len(context.train):
            warnings.append(f"fitted on {len(rows)} of {len(context.train)} training images")
        served = _predict(context, "served", rows)
        items |= _items(served, "")
        baselines: dict[str, Metrics] = {}
        for name in context.baselines:
            predicted = attempt(
                f"baseline {name}", partial(_predict, context, name, rows), warnings
            )
            if predicted is not None:
                items |= _items(predicted, f"_{name}")
                baselines[name] = _metrics(predicted, labels)
        return TaskResult(
            "linear",
            _metrics(served, labels),
            baselines,
            cost={"images": len(context.train) + len(context.test)},
            warnings=tuple(warnings),
            items=items,
        )


def _predict(context: Context, which: Which, rows: npt.NDArray[np.int64]) -> dict[str, Labels]:
    """Predicted class of each test image, by metric."""
    train = context.embeddings(which, context.train)[rows]
    labels = np.asarray(context.train.labels)[rows]
    test = context.embeddings(which, context.test)
    names = context.train.class_names
    context.progress(f"{which}: logistic regression", 0.5)
    probe = fit_probe(train, labels, class_names=names, seed=context.seed)
    by_sgd, _ = sgd_probe(train, labels, test, classes=len(names), seed=context.seed)
    return {"top1": probe.head.logits(test).argmax(axis=1), "top1_sgd": by_sgd}


def _metrics(predictions: dict[str, Labels], labels: Labels) -> Metrics:
    return {name: accuracy(found == labels) for name, found in predictions.items()}


def _items(predictions: dict[str, Labels], suffix: str) -> dict[str, npt.NDArray[np.generic]]:
    return {
        f"predictions{name.removeprefix('top1')}{suffix}": found
        for name, found in predictions.items()
    }
