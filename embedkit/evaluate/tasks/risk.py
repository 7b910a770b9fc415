"""Where do the errors of a linear probe come from?"""

import hashlib
import math
from collections import Counter
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from embedkit.evaluate.context import Context
from embedkit.evaluate.measurement.checks import class_problem, leakage
from embedkit.evaluate.statistics import LEVEL, Metric, Metrics, accuracy
from embedkit.evaluate.task import TaskResult, skipped, tasks
from embedkit.runtime.probe import fit_probe
from embedkit.types import Images, Labels

__all__ = ["Risk"]

_PARTS = ("approximation", "usability", "probe_generalisation", "encoder_generalisation")


@tasks.register("risk")
@dataclass(frozen=True)
class Risk:
    """The error of a linear probe in four parts that add up to it (Dubois et al. 2023).

    ``approximation``: what no function of the pixels could get right, estimated as the share of
    training images that are byte for byte another image of another class (so it is a lower
    bound). ``usability``: the probe's error on the images that it was fitted on, beyond that.
    ``probe_generalisation``: its further error on training images that it was not fitted on.
    ``encoder_generalisation``: its further error on test images, which the encoder has not seen
    either. ``total`` is the error of that last probe on the test images.

    The parts mean what they say if the encoder was trained on the training images.

    Metrics: the four parts and ``total``. Items: ``wrong_fitted``, ``wrong_held_out``,
    ``wrong_test``.

    Attributes:
        held_out: Most training images that the second probe is scored on, as many as there are
            test images and at most this share.
    """

    held_out: float = 0.2

    def metric_names(self, context: Context) -> tuple[str, ...]:
        """Every metric that it may give here."""
        return (*_PARTS, "total")

    def run(self, context: Context) -> TaskResult:
        """Fit on all and on most training images, and compare the errors."""
        problem = class_problem(context)
        if problem:
            return skipped("risk", problem)
        labels = np.asarray(context.train.labels)
        z = context.embeddings("served", context.train)
        kept, out = self._split(context, labels)
        if not len(out):
            return skipped("risk", "expected a class with at least two training images")
        context.progress("served: logistic regression", 0.3)
        names = context.train.class_names
        full = fit_probe(z, labels, class_names=names, seed=context.seed)
        fitted = full.head.logits(z).argmax(axis=1) != labels
        context.progress("served: logistic regression", 0.7)
        partly = fit_probe(z[kept], labels[kept], class_names=names, cs=(full.c,))
        held = partly.head.logits(z[out]).argmax(axis=1) != labels[out]
        unseen = context.embeddings("served", context.test)
        test = partly.head.logits(unseen).argmax(axis=1) != np.asarray(context.test.labels)
        twins = _outvoted(context.train.images, labels)
        return TaskResult(
            "risk",
            _metrics(twins, fitted, held, test),
            cost={"images": len(context.train) + len(context.test)},
            warnings=leakage(context),
            items={"wrong_fitted": fitted, "wrong_held_out": held, "wrong_test": test},
        )

    def _split(
        self, context: Context, labels: Labels
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Rows to fit the second probe on, and to score it on."""
        share = min(self.held_out, len(context.test) / len(labels))
        rng = np.random.default_rng(context.seed)
        out = np.zeros(len(labels), bool)
        for label in np.unique(labels):
            rows = rng.permutation(np.flatnonzero(labels == label))
            out[rows[: max(1, round(share * len(rows))) if len(rows) > 1 else 0]] = True
        return np.flatnonzero(~out), np.flatnonzero(out)


Wrong = npt.NDArray[np.bool_]


def _metrics(twins: Wrong, fitted: Wrong, held: Wrong, test: Wrong) -> Metrics:
    """Each part is the difference of two shares; they add up to the last one."""
    metrics: Metrics = {"approximation": _share(twins)}
    steps = [twins, fitted, held, test]
    for name, before, after in zip(_PARTS[1:], steps, steps[1:], strict=False):
        value = float(after.mean() - before.mean())
        # Of two independent shares; where the images are the same it is too wide.
        spread = math.sqrt(_variance(after) + _variance(before))
        half = NormalDist().inv_cdf(0.5 + LEVEL / 2) * spread
        ci = (max(value - half, -1.0), min(value + half, 1.0))
        metrics[name] = Metric(value, ci, len(after), "fraction", False, "normal")
    return metrics | {"total": _share(test)}


def _share(wrong: Wrong) -> Metric:
    return replace(accuracy(wrong), higher_is_better=False)


def _variance(wrong: Wrong) -> float:
    """Of a share, by Agresti and Coull: two more of each kind, so that it is never 0."""
    n = len(wrong) + 4
    share = (float(wrong.sum()) + 2) / n
    return share * (1 - share) / n


def _outvoted(images: Images | tuple[bytes, ...], labels: Labels) -> Wrong:
    """Which images are byte for byte one whose copies have another class more often."""
    keys = [
        hashlib.blake2b(
            image.tobytes() if isinstance(image, np.ndarray) else image, digest_size=16
        ).digest()
        for image in images
    ]
    pairs = list(zip(keys, labels.tolist(), strict=True))
    counts = Counter(pairs)
    best: dict[bytes, tuple[int, int]] = {}
    for (key, label), count in counts.items():
        # Among equals the smaller class: one class per image, as a function has.
        if key not in best or (count, -label) > (best[key][0], -best[key][1]):
            best[key] = (count, label)
    return np.array([best[key][1] != label for key, label in pairs])
