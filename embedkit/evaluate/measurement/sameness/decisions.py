"""What a difference between two models' embeddings does to the decisions made from them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from embedkit.detect.detector import Detector, Observation, detectors
from embedkit.evaluate.context import Context
from embedkit.evaluate.measurement.means import mean_metric
from embedkit.evaluate.statistics import Metric, Metrics, clopper_pearson, paired_auroc
from embedkit.measures.knn import nearest, vote
from embedkit.types import Embeddings, Labels

__all__ = ["DECISIONS", "Decisions"]

DECISIONS = ("knn_flips", "neighbour_overlap")
_NEIGHBOURS, _TEMPERATURE, _OVERLAP, _DETECTOR_K = 20, 0.07, 10, 50


@dataclass(frozen=True)
class Decisions:
    """Decisions among the training images as the served model sees them.

    Attributes:
        bank: Served embeddings of the training images, (n, d).
        labels: Their classes, or None where there are none to vote for.
        classes: How many classes there are.
    """

    bank: Embeddings
    labels: Labels | None
    classes: int

    @classmethod
    def of(cls, context: Context, *, with_classes: bool) -> "Decisions":
        """The served training images of a run.

        Args:
            context: The models and the data.
            with_classes: Whether the data has classes to vote for.
        """
        train = context.train
        labels = np.asarray(train.labels) if with_classes else None
        bank = context.embeddings("served", train)
        return cls(bank, labels, len(train.class_names))

    def changes(self, first: Embeddings, second: Embeddings) -> Metrics:
        """What changes when the second model answers for the first, on the same images.

        Args:
            first: Embeddings by the first model, (m, d).
            second: By the second.

        Returns:
            ``neighbour_overlap``, the share of the 10 nearest training images that stay, and,
            with classes, ``knn_flips``.
        """
        k = min(_NEIGHBOURS, len(self.bank))
        found = [nearest(self.bank, z, k) for z in (first, second)]
        one, other = (rows[:, :_OVERLAP] for rows, _ in found)
        shared = (one[:, :, np.newaxis] == other[:, np.newaxis, :]).any(axis=2).mean(axis=1)
        metrics = {"neighbour_overlap": mean_metric(shared, least=0, most=1)}
        if self.labels is not None:
            votes = [
                vote(self.labels[rows], cosines, temperature=_TEMPERATURE, classes=self.classes)
                for rows, cosines in found
            ]
            metrics["knn_flips"] = _count(int(np.count_nonzero(votes[0] != votes[1])), len(one))
        return metrics

    def area_changes(
        self,
        first: Mapping[str, Embeddings],
        second: Mapping[str, Embeddings],
        known: str,
    ) -> Metrics:
        """The change of each novel set's AUROC, by the ``knn`` detector on the served bank.

        Args:
            first: Embeddings by the first model, of the known images and of each novel set.
            second: The same images' embeddings by the second.
            known: Name of the known images.

        Returns:
            ``<set>.auroc_change``: the second less the first, with the paired interval.
        """
        make: Callable[..., Detector] = detectors.get("knn")
        fitted = make(k=min(_DETECTOR_K, len(self.bank))).fit(Observation(self.bank))
        scores = [
            {name: fitted.score(Observation(z)) for name, z in model.items()}
            for model in (first, second)
        ]
        metrics: Metrics = {}
        for name in first:
            pair = [(s[known], s[name]) for s in scores]
            if name == known or min(len(part) for part in pair[0]) < 2:
                continue
            change = paired_auroc(pair[0], pair[1])
            metrics[f"{name}.auroc_change"] = Metric(
                change.value, change.ci, change.n, "difference", ci_method=change.ci_method
            )
        return metrics


def _count(flipped: int, n: int) -> Metric:
    low, high = clopper_pearson(flipped, n)
    ci = (low * n, high * n)
    return Metric(flipped, ci, n, "count", higher_is_better=False, ci_method="clopper_pearson")
