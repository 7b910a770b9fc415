"""Do the classes show without any labels?"""

import warnings
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from embedkit.evaluate.context import Context, Which
from embedkit.evaluate.measurement.checks import class_problem
from embedkit.evaluate.measurement.means import table_metric
from embedkit.evaluate.measurement.partial import attempt
from embedkit.evaluate.statistics import Metric, Metrics
from embedkit.evaluate.task import TaskResult, skipped, tasks
from embedkit.measures.clustering import (
    adjusted_rand,
    contingency,
    normalised_mutual_information,
    purity,
)
from embedkit.types import Labels

__all__ = ["Clustering"]


@tasks.register("clustering")
@dataclass(frozen=True)
class Clustering:
    """Agreement of k-means groups of the test embeddings with the classes.

    As many groups as the test images have classes; the best of ``starts`` k-means++ starts by
    the sum of squares, which looks at no label. ``nmi_sd`` is the spread over the starts.

    Metrics: ``nmi`` (arithmetic mean of the entropies), ``ari``, ``purity``, ``nmi_sd``.
    Items: ``groups``, ``labels`` and ``groups_<baseline>``.

    Attributes:
        starts: k-means starts.
    """

    starts: int = 10

    def metric_names(self, context: Context) -> tuple[str, ...]:
        """Every metric that it may give here."""
        return ("nmi", "ari", "purity", "nmi_sd")

    def run(self, context: Context) -> TaskResult:
        """Group the test images, for the model and the baselines."""
        problem = class_problem(context)
        if problem:
            return skipped("clustering", problem)
        labels = np.asarray(context.test.labels)
        notes: list[str] = []
        groups = self._groups(context, "served")
        items: dict[str, npt.NDArray[np.generic]] = {"labels": labels, "groups": groups[0]}
        baselines: dict[str, Metrics] = {}
        for name in context.baselines:
            found = attempt(f"baseline {name}", partial(self._groups, context, name), notes)
            if found is not None:
                items[f"groups_{name}"] = found[0]
                baselines[name] = _metrics(labels, found)
        return TaskResult(
            "clustering",
            _metrics(labels, groups),
            baselines,
            cost={"images": len(context.test)},
            warnings=tuple(notes),
            items=items,
        )

    def _groups(self, context: Context, which: Which) -> list[Labels]:
        """Group of each test image in each start, the best start first."""
        from sklearn.cluster import KMeans
        from threadpoolctl import threadpool_limits

        z = context.embeddings(which, context.test)
        wanted = len(np.unique(np.asarray(context.test.labels)))
        context.progress(f"{which}: k-means", 0.5)
        found: list[tuple[float, Labels]] = []
        # Products of this size are slower when they are shared between threads, and the sums
        # of several threads differ in their last bits from run to run.
        with threadpool_limits(limits=1), warnings.catch_warnings():
            # Fewer different embeddings than groups is an answer, and not a mistake.
            warnings.simplefilter("ignore")
            for start in range(self.starts):
                seed = (context.seed * 1000 + start) % 2**32
                model = KMeans(wanted, n_init=1, random_state=seed).fit(z)
                found.append((float(model.inertia_), model.labels_.astype(np.int64)))
        return [groups for _, groups in sorted(found, key=lambda pair: pair[0])]


def _metrics(labels: Labels, groups: list[Labels]) -> Metrics:
    table = contingency(labels, groups[0])
    each = [float(normalised_mutual_information(contingency(labels, g))) for g in groups]
    return {
        "nmi": table_metric(normalised_mutual_information, table),
        "ari": table_metric(adjusted_rand, table, least=-1.0),
        "purity": table_metric(purity, table),
        "nmi_sd": Metric(float(np.std(each)), None, len(each), higher_is_better=False),
    }
