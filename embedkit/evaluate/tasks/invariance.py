"""What happens when an image is changed in ways that should not matter?"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.data.dataset import Dataset
from embedkit.evaluate.context import Context
from embedkit.evaluate.measurement.checks import class_problem
from embedkit.evaluate.measurement.means import mean_metric
from embedkit.evaluate.measurement.pixels.views import VIEWS, view
from embedkit.evaluate.statistics import Metrics, accuracy
from embedkit.evaluate.task import TaskResult, tasks
from embedkit.measures.knn import nearest, weighted_knn
from embedkit.types import Embeddings, Labels

__all__ = ["Invariance"]

_NEIGHBOURS = 20


@tasks.register("invariance")
@dataclass(frozen=True)
class Invariance:
    """Embeddings of up to ``view_images`` test images before and after mild changes.

    The changes are those of ``measurement.pixels.views``: ``flip``, ``shift``, ``crop``,
    ``rotate``, ``brightness``, ``contrast``, ``grey``, ``blur``, ``noise``, ``jpeg``. Whether
    an embedding *should* ignore one is for the user to say: digits are not to be flipped.

    Metrics: ``<change>.cosine`` with the unchanged image; ``<change>.found``, the share of
    images whose nearest neighbour among all unchanged ones is themselves; with labels
    ``<change>.top1`` and ``<change>.kept``, the share whose kNN decision (k = 20) stays. And
    ``none.top1`` for comparison, ``mean_cosine`` and ``mean_found``: means over the changes,
    less those that leave every image as it was, such as ``grey`` of grey images. Items:
    ``<change>.cosine``, ``<change>.found``, ``<change>.predictions``, ``labels``, ``ids``.
    """

    def metric_names(self, context: Context) -> tuple[str, ...]:
        """Every metric that it may give here."""
        kinds = ("cosine", "found", "top1", "kept")
        each = tuple(f"{change}.{kind}" for change in VIEWS for kind in kinds)
        return (*each, "none.top1", "mean_cosine", "mean_found")

    def run(self, context: Context) -> TaskResult:
        """Change, embed and compare."""
        part = _part(context)
        images = part.arrays(context.spec)
        problem = class_problem(context)
        warnings = [f"no top1 and kept: {problem}"] if problem else []
        clean = context.embeddings("served", Dataset("unchanged", images))
        metrics: Metrics = {}
        items: dict[str, npt.NDArray[np.generic]] = {"ids": np.array(part.ids)}
        before = None
        if not problem:
            before = _decide(context, clean)
            items["labels"] = np.asarray(part.labels)
            metrics["none.top1"] = accuracy(before == part.labels)
        cosines, founds = [], []
        idle: list[str] = []
        for index, change in enumerate(VIEWS):
            context.progress(f"served: {change}", index / len(VIEWS))
            made = view(images, change, ids=part.ids, seed=context.seed)
            z = context.embeddings("served", Dataset(change, made))
            cosine = np.sum(z.astype(np.float64) * clean, axis=1).clip(-1, 1)
            found = _found(clean, z)
            if np.array_equal(made, images):
                idle.append(change)
            else:
                cosines.append(cosine)
                founds.append(found)
            items |= {f"{change}.cosine": cosine, f"{change}.found": found}
            metrics[f"{change}.cosine"] = mean_metric(cosine, unit="cosine", least=-1, most=1)
            metrics[f"{change}.found"] = accuracy(found)
            if before is not None:
                after = _decide(context, z)
                items[f"{change}.predictions"] = after
                metrics[f"{change}.top1"] = accuracy(after == part.labels)
                metrics[f"{change}.kept"] = accuracy(after == before)
        if idle:
            warnings.append(
                f"mean_cosine and mean_found are without {', '.join(idle)}: these left every "
                "image as it was"
            )
        if cosines:
            metrics["mean_cosine"] = mean_metric(
                np.mean(cosines, axis=0), unit="cosine", least=-1, most=1
            )
            metrics["mean_found"] = mean_metric(np.mean(founds, axis=0), least=0, most=1)
        return TaskResult(
            "invariance",
            metrics,
            cost={"images": len(part) * (len(VIEWS) + 1)},
            warnings=tuple(warnings),
            items=items,
        )


def _part(context: Context) -> Dataset:
    """The test images that are changed, a seeded choice."""
    count = min(context.options.view_images, len(context.test))
    order = np.random.default_rng(context.seed).permutation(len(context.test))
    return context.test.subset(np.sort(order[:count]))


def _decide(context: Context, z: Embeddings) -> Labels:
    bank = context.embeddings("served", context.train)
    classes = len(context.train.class_names)
    labels = np.asarray(context.train.labels)
    return weighted_knn(bank, labels, z, ks=(_NEIGHBOURS,), classes=classes)[_NEIGHBOURS]


def _found(clean: Embeddings, changed: Embeddings) -> npt.NDArray[np.bool_]:
    """Whether each changed image's nearest unchanged one is itself; equals go by row."""
    rows, _ = nearest(clean, changed, 1)
    own = np.arange(len(clean))
    same: npt.NDArray[np.bool_] = rows[:, 0] == own
    return same
