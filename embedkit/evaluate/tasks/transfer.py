"""Do the embeddings serve data that the model was not trained for?"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from embedkit.data.dataset import Dataset
from embedkit.evaluate.context import Context, Which
from embedkit.evaluate.measurement.partial import attempt
from embedkit.evaluate.statistics import Metrics, accuracy
from embedkit.evaluate.task import TaskResult, skipped, tasks
from embedkit.measures.knn import weighted_knn
from embedkit.runtime.probe import fit_probe
from embedkit.types import Embeddings, Labels

__all__ = ["Transfer"]

Found = dict[str, tuple[Labels, Labels]]

_FIT_SHARE = 0.5
_NEIGHBOURS = 20


@tasks.register("transfer")
@dataclass(frozen=True)
class Transfer:
    """Accuracy on the other labelled data sets, those given as OOD.

    Half of such a set (of each class) is fitted on and the other half is scored:
    ``<set>.knn.top1`` (k = 20, T = 0.07) and ``<set>.linear.top1``. Where the set has classes
    of the training set by name, ``<set>.shift.top1`` scores all its images of these classes
    with the *training* images as neighbours: covariate shift between domains.

    Metrics: as above. Items: ``<set>.labels`` and ``<set>.<kind>`` predictions of the scored
    half, ``<set>.shift_labels`` and ``<set>.shift``.
    """

    def metric_names(self, context: Context) -> tuple[str, ...]:
        """Every metric that it may give here."""
        kinds = ("knn", "linear", "shift")
        return tuple(f"{name}.{kind}.top1" for name in context.ood for kind in kinds)

    def run(self, context: Context) -> TaskResult:
        """Score every labelled set, with the model and the baselines."""
        if not context.ood:
            return skipped("transfer", "expected another data set, got none; give --ood")
        warnings: list[str] = []
        metrics: Metrics = {}
        baselines: dict[str, Metrics] = {}
        items: dict[str, npt.NDArray[np.generic]] = {}
        models: tuple[Which, ...] = ("served", *context.baselines)
        scored = 0
        for name, data in context.ood.items():
            problem = _problem(data)
            if problem:
                warnings.append(f"no {name}: {problem}")
                continue
            scored += len(data)
            for which in models:
                part = name if which == "served" else f"baseline {which}"
                found = attempt(part, partial(_predict, context, which, data), warnings)
                if found is None:
                    continue
                into = metrics if which == "served" else baselines.setdefault(which, {})
                into |= {
                    f"{name}.{kind}.top1": accuracy(predicted == labels)
                    for kind, (predicted, labels) in found.items()
                }
                if which == "served":
                    items |= _items(name, found)
        if not metrics:
            return skipped("transfer", warnings[0])
        return TaskResult(
            "transfer",
            metrics,
            baselines,
            cost={"images": len(context.train) + scored},
            warnings=tuple(warnings),
            items=items,
        )


def _problem(data: Dataset) -> str:
    """Why nothing can be learnt from a set, or empty."""
    if data.labels is None:
        return f"expected labels, got none in {data.name!r}"
    counts = np.unique(data.labels, return_counts=True)[1]
    if len(counts) < 2 or (counts < 2).any():
        return "expected at least two classes and two images of each"
    return ""


def _items(name: str, found: Found) -> dict[str, npt.NDArray[np.generic]]:
    items: dict[str, npt.NDArray[np.generic]] = {}
    for kind, (predicted, labels) in found.items():
        items[f"{name}.{kind}"] = predicted
        items[f"{name}.{'shift_' if kind == 'shift' else ''}labels"] = labels
    return items


def _predict(context: Context, which: Which, data: Dataset) -> Found:
    """Predictions and labels of what is scored, by kind."""
    z, labels = context.embeddings(which, data), np.asarray(data.labels)
    fit, score = _halves(labels, context.seed)
    context.progress(f"{which}: {data.name}", 0.5)
    classes = len(data.class_names)
    near = _vote(z[fit], labels[fit], z[score], classes)
    probe = fit_probe(z[fit], labels[fit], class_names=data.class_names, seed=context.seed)
    found = {
        "knn": (near, labels[score]),
        "linear": (probe.head.logits(z[score]).argmax(axis=1), labels[score]),
    }
    shared = _in_train_classes(context, data)
    if shared is not None:
        rows, wanted = shared
        bank = context.embeddings(which, context.train)
        names = context.train.class_names
        known = np.asarray(context.train.labels)
        found["shift"] = (_vote(bank, known, z[rows], len(names)), wanted)
    return found


def _vote(bank: Embeddings, labels: Labels, queries: Embeddings, classes: int) -> Labels:
    return weighted_knn(bank, labels, queries, ks=(_NEIGHBOURS,), classes=classes)[_NEIGHBOURS]


def _halves(labels: Labels, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows to fit on and to score, ascending; at least one of each class in both."""
    rng = np.random.default_rng(seed)
    fitted = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        fitted[rows[: max(1, int(_FIT_SHARE * len(rows)))]] = True
    return np.flatnonzero(fitted), np.flatnonzero(~fitted)


def _in_train_classes(
    context: Context, data: Dataset
) -> tuple[npt.NDArray[np.int64], Labels] | None:
    """Rows whose class the training set has too, with its class index there."""
    if context.train.labels is None:
        return None
    place = {name: index for index, name in enumerate(context.train.class_names)}
    to_train = np.array([place.get(name, -1) for name in data.class_names], np.int64)
    wanted = to_train[np.asarray(data.labels)]
    rows = np.flatnonzero(wanted >= 0)
    if not len(rows):
        return None
    return rows, wanted[rows]
