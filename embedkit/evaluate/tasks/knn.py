"""Do an image's nearest neighbours have its class?"""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from embedkit.evaluate.context import Context, Which
from embedkit.evaluate.measurement.checks import class_problem, leakage
from embedkit.evaluate.measurement.figures import embedding_map, image_grid
from embedkit.evaluate.measurement.partial import attempt
from embedkit.evaluate.statistics import Metrics, accuracy
from embedkit.evaluate.task import Figure, TaskResult, skipped, tasks
from embedkit.measures.knn import nearest, vote
from embedkit.types import Labels

__all__ = ["NearestNeighbours"]

_NEIGHBOURS_SHOWN = 6
_LOOKED_AT = 50


@tasks.register("knn")
@dataclass(frozen=True)
class NearestNeighbours:
    """Accuracy of the vote of the nearest training images, weighted by exp(cosine / T).

    Three conventions are in use, and each has its name. ``top1`` and ``top1_k<k>`` are DINO's:
    T = 0.07. ``top1_lightly_k200`` is that of lightly's benchmarks: T = 0.1, 200 neighbours.
    ``top1_majority_k<k>`` counts every neighbour alike, as scikit-learn does by default.

    Metrics: ``top1`` for k = 20, ``top1_k<k>`` for the others, and the two other conventions.
    Items: ``predictions_k<k>``, ``predictions_lightly_k200``, ``predictions_majority_k<k>`` and
    ``labels`` of the test images, and ``<baseline>_predictions_k20``.

    Attributes:
        ks: Numbers of neighbours; more than there are training images means all of them.
        main: Which of them is ``top1``.
        temperature: T of the weights.
        majorities: Numbers of neighbours whose votes count alike.
    """

    ks: tuple[int, ...] = (1, 5, 20, 200)
    main: int = 20
    temperature: float = 0.07
    majorities: tuple[int, ...] = (5, 20)

    def metric_names(self, context: Context) -> tuple[str, ...]:
        """Every metric that it may give here."""
        return tuple(self._names().values())

    def run(self, context: Context) -> TaskResult:
        """Vote with the served embeddings, and with those of the baselines."""
        problem = class_problem(context)
        if problem:
            return skipped("knn", problem)
        labels = np.asarray(context.test.labels)
        warnings = [*leakage(context), *self._few_images(context)]
        items: dict[str, npt.NDArray[np.generic]] = {"labels": labels}
        predictions = self._predict(context, "served")
        items |= {f"predictions_{name}": found for name, found in predictions.items()}
        baselines: dict[str, Metrics] = {}
        for name in context.baselines:
            found = attempt(f"baseline {name}", partial(self._predict, context, name), warnings)
            if found is not None:
                main = f"k{self.main}"
                items[f"{name}_predictions_{main}"] = found[main]
                baselines[name] = self._metrics(found, labels)
        return TaskResult(
            "knn",
            self._metrics(predictions, labels),
            baselines,
            cost={"images": len(context.train) + len(context.test)},
            warnings=tuple(warnings),
            items=items,
            figures=_figures(context, predictions[f"k{self.main}"] != labels),
        )

    def _predict(self, context: Context, which: Which) -> dict[str, Labels]:
        """Predicted class of each test image, by convention."""
        labels = np.asarray(context.train.labels)
        train = context.embeddings(which, context.train)
        test = context.embeddings(which, context.test)
        context.progress(f"{which}: nearest neighbours", 0.5)
        most = max(k for k, _ in self._conventions().values())
        rows, cosines = nearest(train, test, min(most, len(train)))
        classes = len(context.train.class_names)
        return {
            name: vote(
                labels[rows[:, :k]], cosines[:, :k], temperature=temperature, classes=classes
            )
            for name, (k, temperature) in self._conventions().items()
        }

    def _conventions(self) -> dict[str, tuple[int, float]]:
        """Neighbours and temperature of each convention; the main one first."""
        ordered = sorted(self.ks, key=lambda k: (k != self.main, k))
        dino = {f"k{k}": (k, self.temperature) for k in ordered}
        majority = {f"majority_k{k}": (k, math.inf) for k in self.majorities}
        return dino | {"lightly_k200": (200, 0.1)} | majority

    def _metrics(self, predictions: dict[str, Labels], labels: Labels) -> Metrics:
        names = self._names()
        return {names[name]: accuracy(found == labels) for name, found in predictions.items()}

    def _names(self) -> dict[str, str]:
        """Metric of each convention."""
        main = f"k{self.main}"
        return {c: "top1" if c == main else f"top1_{c}" for c in self._conventions()}

    def _few_images(self, context: Context) -> list[str]:
        n = len(context.train)
        return [
            f"k = {k} was lowered to {n}, the number of training images"
            for k in self.ks
            if k > n
        ]


def _figures(context: Context, wrong: npt.NDArray[np.bool_]) -> dict[str, Figure]:
    """A map of the test embeddings, and nearest neighbours of a few test images."""
    rng = np.random.default_rng(context.seed)
    order = rng.permutation(len(context.test))
    embeddings = context.embeddings("served", context.test)
    labels = np.asarray(context.test.labels)
    names = context.test.class_names
    shown = np.sort(order[: context.options.map_points])
    title = "Test embeddings on their first two principal components"
    points = embedding_map(embeddings[shown], [names[c] for c in labels[shown]], title)
    figures: dict[str, Figure] = {"map": points, "neighbours": _neighbours(context, order)}
    surest = _surest_mistakes(context, np.flatnonzero(wrong))
    if len(surest):
        title = "The surest mistakes (left) and the training images that led to them"
        figures["hardest"] = _neighbours(context, surest, title)
    return figures


def _surest_mistakes(context: Context, wrong: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The wrong test images whose own class is farthest behind, the farthest first.

    By as much as the nearest image of another class is nearer than the nearest of its own.
    """
    if not len(wrong):
        return wrong
    labels, own = np.asarray(context.train.labels), np.asarray(context.test.labels)[wrong]
    bank = context.embeddings("served", context.train)
    k = min(_LOOKED_AT, len(bank))
    rows, cosines = nearest(bank, context.embeddings("served", context.test)[wrong], k)
    same = labels[rows] == own[:, np.newaxis]
    nearest_own = np.where(same, cosines, cosines[:, -1:]).max(axis=1)
    behind = np.where(same, -1, cosines).max(axis=1) - nearest_own
    return np.asarray(wrong[np.argsort(-behind, kind="stable")])


def _neighbours(
    context: Context,
    order: npt.NDArray[np.int64],
    title: str = "Test images (left) and their nearest training images",
) -> Figure:
    train, test = context.train, context.test
    queries = order[: context.options.grid_rows]
    bank = context.embeddings("served", train)
    k = min(_NEIGHBOURS_SHOWN, len(train))
    found, _ = nearest(bank, context.embeddings("served", test)[queries], k)
    rows = []
    for query, rank in zip(queries, found, strict=True):
        images = [
            part.arrays(context.spec) for part in (test.subset([query]), train.subset(rank))
        ]
        near = ", ".join(train.class_names[c] for c in np.asarray(train.labels)[rank])
        label = test.class_names[np.asarray(test.labels)[query]]
        rows.append((f"{label}: {near}", np.concatenate(images)))
    return image_grid(rows, title)
