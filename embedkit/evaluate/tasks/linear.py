"""Can a linear classifier on the embeddings tell the classes apart?"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from embedkit.evaluate.context import BASELINES, Context, Which
from embedkit.evaluate.measurement.checks import class_problem, leakage
from embedkit.evaluate.measurement.metric import Metrics
from embedkit.evaluate.measurement.partial import attempt
from embedkit.evaluate.statistics import accuracy
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

    def run(self, context: Context) -> TaskResult:
        """Fit on train, score on test, for the model and the baselines."""
        problem = class_problem(context)
        if problem:
            return skipped("linear", problem)
        labels = np.asarray(context.test.labels)
        items: dict[str, npt.NDArray[np.generic]] = {"labels": labels}
        items["predictions"] = _predict(context, "served")
        warnings = list(leakage(context))
        baselines: dict[str, Metrics] = {}
        for name in BASELINES:
            predicted = attempt(f"baseline {name}", partial(_predict, context, name), warnings)
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


def _predict(context: Context, which: Which) -> Labels:
    """Predicted class of each test image."""
    train = context.embeddings(which, context.train)
    test = context.embeddings(which, context.test)
    context.progress(f"{which}: logistic regression", 0.5)
    probe = fit_probe(
        train,
        np.asarray(context.train.labels),
        class_names=context.train.class_names,
        seed=context.seed,
    )
    predictions: Labels = probe.head.logits(test).argmax(axis=1)
    return predictions
