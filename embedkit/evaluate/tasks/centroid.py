"""Is the nearest class mean the right one?"""

from dataclasses import dataclass

import numpy as np

from embedkit.evaluate.context import Context, Which
from embedkit.evaluate.measurement.prediction import Predictions, report_predictions
from embedkit.evaluate.task import TaskResult, tasks
from embedkit.measures.probes import nearest_centroid

__all__ = ["Centroid"]


@tasks.register("centroid")
@dataclass(frozen=True)
class Centroid:
    """Accuracy of the nearest class mean by cosine: one vector per class, nothing to tune.

    Metrics: ``top1``. Items: ``predictions``, ``labels`` and ``predictions_<baseline>``.
    """

    def metric_names(self, context: Context) -> tuple[str, ...]:
        """Every metric that it may give here."""
        return ("top1",)

    def run(self, context: Context) -> TaskResult:
        """Average on train, compare on test."""

        def predict(which: Which) -> Predictions:
            found = nearest_centroid(
                context.embeddings(which, context.train),
                np.asarray(context.train.labels),
                context.embeddings(which, context.test),
                classes=len(context.train.class_names),
            )
            return {"top1": found}

        return report_predictions("centroid", context, predict)
