"""Pictures of what a detector gets most wrong."""

from collections.abc import Mapping

import numpy as np

from embedkit.data.dataset import Dataset
from embedkit.evaluate.context import Context
from embedkit.evaluate.measurement.figures import image_grid
from embedkit.types import Images, Scores

__all__ = ["novelty_gallery"]

_SHOWN = 10


def novelty_gallery(
    context: Context, scores: Mapping[str, Scores], known: str, detector: str
) -> dict[str, object]:
    """The test images that look most novel, and the images of each set that look least so.

    Args:
        context: The data sets.
        scores: Novelty of each image, by set.
        known: Name of the test images among the scores.
        detector: What gave the scores.
    """
    rows = [("most novel of the test images", _pictures(context, context.test, -scores[known]))]
    for name, data in context.ood.items():
        if name in scores:
            rows.append((f"most familiar of {name}", _pictures(context, data, scores[name])))
            rows.append((f"most novel of {name}", _pictures(context, data, -scores[name])))
    return image_grid(rows, f"Extremes of the novelty by {detector}")


def _pictures(context: Context, data: Dataset, order: Scores) -> Images:
    """The images of the smallest values, at the model's size."""
    rows = np.argsort(order, kind="stable")[:_SHOWN]
    return data.subset(rows).arrays(context.spec)
