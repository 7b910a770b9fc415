"""Does a search find images of the query's class, and nothing else first?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from embedkit.data.dataset import Dataset
from embedkit.evaluate.context import Context, Which
from embedkit.evaluate.measurement.checks import class_problem, leakage
from embedkit.evaluate.measurement.partial import attempt
from embedkit.evaluate.statistics import (
    FEW,
    Counts,
    Metric,
    Metrics,
    accuracy,
    bootstrap,
    constant_interval,
    content_seed,
)
from embedkit.evaluate.task import TaskResult, skipped, tasks
from embedkit.measures.knn import nearest, unit
from embedkit.measures.ranking import average_precision, hit, map_at_r, ndcg, precision
from embedkit.types import EncodedImages, Images

__all__ = ["Retrieval", "Retriever"]

Rows = npt.NDArray[np.int64]
"""Row numbers of the gallery's images, (m, n), best first; -1 where nothing was found."""

_DEPTH = 10
_AGREEMENT = f"search_recall_at_{_DEPTH}"
# Cosines of the same two images differ by this much between two programs.
_TIE = 1e-5


@runtime_checkable
class Retriever(Protocol):
    """A model with collections beside it: images are stored, and searched for by image."""

    def retrieve(
        self, stored: Images | EncodedImages, queries: Images | EncodedImages, k: int
    ) -> Rows:
        """Return the rows of the best ``k`` stored images of each query, (m, k)."""
        ...


@tasks.register("retrieval")
@dataclass(frozen=True)
class Retrieval:
    """Rankings of the training images by likeness to each test image; the same class counts.

    The server stores the gallery in a collection, made for this and dropped after it, and is
    searched by image. Without collections the ranking is exact search over the served
    embeddings, and a warning says so.

    Metrics: ``map``, ``map_at_r``, ``ndcg_at_10``, ``precision_at_<k>``, ``recall_at_<k>`` (any
    hit), and ``search_recall_at_10``: the share of the ten truly nearest images that the served
    search finds. Items: the values per query, and ``queries``, their rows in the test set.

    Attributes:
        ks: Places that are looked at; more than there are images means all of them.
        gallery_images: Training images in the gallery at most, a seeded choice.
        query_images: Test images that are searched for at most, a seeded choice.
        resamples: Bootstrap samples of each interval.
    """

    ks: tuple[int, ...] = (1, 5, 10)
    gallery_images: int = 5000
    query_images: int = 500
    resamples: int = 1000

    def metric_names(self, context: Context) -> tuple[str, ...]:
        """Every metric that it may give here."""
        names = [f"{name}_at_{k}" for k in self.ks for name in ("precision", "recall")]
        return ("map", "map_at_r", "ndcg_at_10", *names, _AGREEMENT)

    def run(self, context: Context) -> TaskResult:
        """Rank with the served search, and with the embeddings of the baselines."""
        problem = class_problem(context)
        if problem:
            return skipped("retrieval", problem)
        warnings = list(leakage(context))
        sample = _sample(context, self.gallery_images, self.query_images, warnings)
        if not len(sample.rows):
            return skipped(
                "retrieval", "expected test images of the training classes, got none"
            )
        rows = _served(context, sample, warnings)
        extra: Metrics = {}
        if rows is None:
            rows = _exact(context, sample, "served")
        else:
            extra = {_AGREEMENT: self._mean(_agreement(context, sample, rows), _AGREEMENT)}
        values = self._values(sample.relevant(rows), sample.totals)
        baselines: dict[str, Metrics] = {}
        for which in context.baselines:
            found = attempt(
                f"baseline {which}", partial(_exact, context, sample, which), warnings
            )
            if found is not None:
                others = self._values(sample.relevant(found), sample.totals)
                baselines[which] = self._metrics(others)
        return TaskResult(
            "retrieval",
            self._metrics(values) | extra,
            baselines,
            cost={"images": len(sample.gallery) + len(sample.queries)},
            warnings=tuple(warnings),
            items={"queries": sample.rows, **values},
        )

    def _values(
        self, relevant: npt.NDArray[np.bool_], totals: npt.NDArray[np.int64]
    ) -> dict[str, npt.NDArray[np.generic]]:
        """Every metric of every query."""
        wide = relevant.shape[1]
        values: dict[str, npt.NDArray[np.generic]] = {
            "map": average_precision(relevant, totals),
            "map_at_r": map_at_r(relevant, totals),
            "ndcg_at_10": ndcg(relevant, totals, min(_DEPTH, wide)),
        }
        for k in self.ks:
            values[f"precision_at_{k}"] = precision(relevant, min(k, wide))
            values[f"recall_at_{k}"] = hit(relevant, min(k, wide))
        return values

    def _metrics(self, values: dict[str, npt.NDArray[np.generic]]) -> Metrics:
        return {
            name: accuracy(each.astype(np.bool_))
            if each.dtype == np.bool_
            else self._mean(each, name)
            for name, each in values.items()
        }

    def _mean(self, values: npt.NDArray[np.generic], name: str) -> Metric:
        """The mean over queries with a bootstrap interval over them."""
        numbers = values.astype(np.float64)
        value, n = float(numbers.mean()), len(numbers)
        if n < FEW:
            return Metric(value, None, n)
        if numbers.min() == numbers.max():
            same = constant_interval(value, n, least=0, most=1)
            return Metric(value, same, n, ci_method="clopper_pearson")

        def mean(counts: Sequence[Counts]) -> npt.NDArray[np.float64]:
            return np.array([counts[0] @ numbers / n])

        seed = content_seed(name, numbers)
        ((low, high),) = bootstrap(mean, (n,), seed=seed, resamples=self.resamples)
        ci = min(low, value), max(high, value)
        return Metric(value, ci, n, ci_method="bootstrap")


@dataclass(frozen=True, eq=False)
class _Sample:
    """What is searched, and what for.

    Attributes:
        gallery: Stored images.
        queries: Images that are searched for, each with its class in the gallery.
        rows: Their rows in the test set, (m,).
        totals: Images of the query's class in the gallery, (m,).
    """

    gallery: Dataset
    queries: Dataset
    rows: Rows
    totals: npt.NDArray[np.int64]

    def relevant(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """Whether each place of each ranking has the query's class."""
        labels, wanted = np.asarray(self.gallery.labels), np.asarray(self.queries.labels)
        return np.asarray((rows >= 0) & (labels[rows] == wanted[:, np.newaxis]))


def _sample(context: Context, gallery: int, queries: int, warnings: list[str]) -> _Sample:
    """Seeded choices of the training and test images; those without a partner are left out."""
    rng = np.random.default_rng([context.seed, len(context.train), len(context.test)])
    kept = np.sort(rng.permutation(len(context.train))[:gallery])
    rows = np.sort(rng.permutation(len(context.test))[:queries])
    stored = context.train.subset(kept)
    labels = np.asarray(context.test.labels)
    most = max(int(labels.max()), int(np.asarray(stored.labels).max())) + 1
    totals = np.bincount(np.asarray(stored.labels), minlength=most)[labels[rows]]
    lonely = int(np.count_nonzero(totals == 0))
    if lonely:
        warnings.append(f"{lonely} test images have a class that the gallery has not: left out")
    rows, totals = rows[totals > 0], totals[totals > 0]
    return _Sample(stored, context.test.subset(rows), rows, totals)


def _served(context: Context, sample: _Sample, warnings: list[str]) -> Rows | None:
    """The rankings that the server gives; None, with a warning, if it gives none."""
    served = context.served
    if not isinstance(served, Retriever):
        warnings.append(
            "the model has no collections beside it: these are rankings of exact search over "
            "its embeddings, not of a served search"
        )
        return None
    context.progress("served: search", 0.1)
    search: Callable[[], Rows] = partial(
        served.retrieve, sample.gallery.images, sample.queries.images, len(sample.gallery)
    )
    return attempt("served search, exact search over the embeddings instead", search, warnings)


def _exact(context: Context, sample: _Sample, which: Which) -> Rows:
    """The rankings by cosine of one model's embeddings."""
    stored = context.embeddings(which, sample.gallery)
    rows, _ = nearest(stored, context.embeddings(which, sample.queries), len(stored))
    return rows


def _agreement(context: Context, sample: _Sample, rows: Rows) -> npt.NDArray[np.float64]:
    """Share of the truly nearest images among the first that the server gave, per query."""
    stored = unit(context.embeddings("served", sample.gallery))
    queries = unit(context.embeddings("served", sample.queries))
    k = min(_DEPTH, len(stored))
    _, cosines = nearest(stored, queries, k)
    found = np.einsum("mkd,md->mk", stored[rows[:, :k]], queries)
    found = np.where(rows[:, :k] >= 0, found, -np.inf)
    return np.asarray((found >= cosines[:, -1:] - _TIE).mean(axis=1, dtype=np.float64))
