"""Can the classes be told apart dimension by dimension?"""

from dataclasses import dataclass

import numpy as np

from embedkit.evaluate.context import Context, Which
from embedkit.evaluate.measurement.prediction import Predictions, report_predictions
from embedkit.evaluate.task import TaskResult, tasks
from embedkit.measures.probes import naive_bayes

__all__ = ["NaiveBayes"]


@tasks.register("naive_bayes")
@dataclass(frozen=True)
class NaiveBayes:
    """Accuracy of Gaussian naive Bayes: every dimension counts on its own.

    Near the linear probe, the dimensions are disentangled; far below it, classes lie in
    combinations of dimensions.

    Metrics: ``top1``. Items: ``predictions``, ``labels`` and ``predictions_<baseline>``.
    """

    def metric_names(self, context: Context) -> tuple[str, ...]:
        """Every metric that it may give here."""
        return ("top1",)

    def run(self, context: Context) -> TaskResult:
        """Fit on train, score on test."""

        def predict(which: Which) -> Predictions:
            found = naive_bayes(
                context.embeddings(which, context.train),
                np.asarray(context.train.labels),
                context.embeddings(which, context.test),
                classes=len(context.train.class_names),
            )
            return {"top1": found}

        return report_predictions("naive_bayes", context, predict)
