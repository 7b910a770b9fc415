"""Is the class that the server answers with the right one?"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.data.dataset import Dataset
from embedkit.errors import NotFound
from embedkit.evaluate.context import CHUNK, Context
from embedkit.evaluate.measurement.checks import class_problem, head_leakage
from embedkit.evaluate.statistics import accuracy
from embedkit.evaluate.task import TaskResult, skipped, tasks
from embedkit.types import ImageScores, Labels, Scorer

__all__ = ["Classify"]


@tasks.register("classify")
@dataclass(frozen=True)
class Classify:
    """Accuracy of the bundle's own head, through the served CLASS output.

    Metrics: ``top1``. Items: ``predictions`` in the test set's class indices (-1 for a class
    that the test set does not have), ``labels``, ``confidence``.
    """

    def metric_names(self, context: Context) -> tuple[str, ...]:
        """Every metric that it may give here."""
        return ("top1",)

    def run(self, context: Context) -> TaskResult:
        """Ask for the class of every test image."""
        problem = class_problem(context)
        if problem:
            return skipped("classify", problem)
        try:
            found = _scores(context)
        except NotFound as error:
            return skipped("classify", str(error))
        if found.labels is None:
            return skipped("classify", "expected a model with a head, got one without")
        predictions, warnings = _in_test_classes(found, found.labels, context.test)
        labels = np.asarray(context.test.labels)
        items: dict[str, npt.NDArray[np.generic]] = {
            "predictions": predictions,
            "labels": labels,
        }
        if found.probabilities is not None:
            items["confidence"] = found.probabilities.max(axis=1)
        return TaskResult(
            "classify",
            {"top1": accuracy(predictions == labels)},
            cost={"images": len(context.test)},
            warnings=(*warnings, *head_leakage(context)),
            items=items,
        )


def _scores(context: Context) -> ImageScores:
    """What the served model says of the test images."""
    served = context.served
    if not isinstance(served, Scorer):
        raise NotFound("expected a model that answers with classes, got an embedder alone")
    parts = []
    for start in range(0, len(context.test), CHUNK):
        context.progress("classes of the test images", start / len(context.test))
        parts.append(served.score(context.test.images[start : start + CHUNK]))
    labels = [part.labels for part in parts if part.labels is not None]
    probabilities = [part.probabilities for part in parts if part.probabilities is not None]
    return ImageScores(
        np.concatenate(labels) if len(labels) == len(parts) else None,
        np.concatenate(probabilities) if len(probabilities) == len(parts) else None,
        None,
        parts[0].class_names,
    )


def _in_test_classes(
    found: ImageScores, predicted: Labels, test: Dataset
) -> tuple[Labels, tuple[str, ...]]:
    """Predictions as class indices of the test set, matched by name where the names agree."""
    head, names = found.class_names, test.class_names
    if not head or head == names:
        return predicted, ()
    known = {name: index for index, name in enumerate(names)}
    if known.keys() & set(head):
        absent = sorted(set(names) - set(head))
        warning = (f"the head has no class for {absent}: those images count as wrong",)
        to_test = np.array([known.get(name, -1) for name in head], dtype=np.int64)
        return to_test[predicted], warning if absent else ()
    return predicted, (
        f"the head's classes {list(head[:5])} and the test set's {list(names[:5])} have no "
        "name in common: they were matched by position",
    )
