"""Would a monitor of the embeddings notice that the images have changed, and when?"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from embedkit.detect.detector import Observation, detectors
from embedkit.errors import InvalidInput
from embedkit.evaluate.context import Context
from embedkit.evaluate.measurement.novelty.drift import TESTS, score_shift
from embedkit.evaluate.measurement.survival import censored_median
from embedkit.evaluate.statistics import Metric, Metrics, clopper_pearson
from embedkit.evaluate.task import TaskResult, skipped, tasks
from embedkit.registry import configure
from embedkit.types import Embeddings, Scores

__all__ = ["Drift"]

NO_DRIFT, KNOWN, SCORE = "no_drift", "known", "ood_score"
_LEAST, _FITTED, _NEIGHBOUR = 60, 5000, 5

PValues = npt.NDArray[np.float64]
"""(streams, sizes): the p value after so many images of a stream."""

Scored = tuple[Embeddings, Scores]
"""Images and their novelty."""


@tasks.register("drift")
@dataclass(frozen=True)
class Drift:
    """Alarm rates of four tests of drift, and how many images each needs.

    A stream of images is compared with a reference, after each number of images in ``sizes``.
    Reference and streams are drawn anew ``context.options.drift_streams`` times. ``no_drift``
    draws both from the training images, so that every alarm is false; ``known`` streams are
    test images, the others the novel and shifted sets.

    Tests: ``mmd`` (kernel, permutation null), ``classifier`` (two-sample, by ranks),
    ``dimensions`` (Kolmogorov-Smirnov of each, Bonferroni), ``ood_score``
    (Kolmogorov-Smirnov of the distance to the 5th neighbour).

    Metrics: ``<set>.<test>.alarms``, the share of streams with p < level at their end, with the
    exact interval; ``<set>.<test>.delay``, the median number of images until the first alarm
    when each look has level / looks, where at least half of the streams raise one, with the
    exact interval of a median from 6 streams on; an end that falls among streams without an
    alarm is the last look, as a lower bound.
    Items: ``<set>.<test>.p_values`` (streams, sizes), and ``sizes``.

    Attributes:
        sizes: Images of a stream when it is looked at; more than there are count as all.
        reference: Training images of the reference, at most.
        level: Of an alarm.
    """

    sizes: tuple[int, ...] = (10, 20, 50, 100, 200)
    reference: int = 200
    level: float = 0.05

    def metric_names(self, context: Context) -> tuple[str, ...]:
        """Every metric that it may give here."""
        names = (NO_DRIFT, KNOWN, *context.ood, *context.shifted)
        return tuple(
            f"{name}.{test}.{kind}"
            for name in names
            for test in (*TESTS, SCORE)
            for kind in ("alarms", "delay")
        )

    def run(self, context: Context) -> TaskResult:
        """Stream every set past a reference, many times.

        Raises:
            InvalidInput: If a set has the name of a stream of the task's own.
        """
        _check_names(context)
        train = context.embeddings("served", context.train)
        if len(train) < _LEAST:
            return skipped(
                "drift", f"expected at least {_LEAST} training images, got {len(train)}"
            )
        order = np.random.default_rng(context.seed).permutation(len(train))
        fitted, pool = np.split(train[order], [min(len(train) // 3, _FITTED)])
        score = self._scorer(fitted)
        scored_pool = pool, score(pool)
        sets: dict[str, Embeddings | None] = {NO_DRIFT: None}
        sets[KNOWN] = context.embeddings("served", context.test)
        for name, dataset in {**context.ood, **context.shifted}.items():
            sets[name] = context.embeddings("served", dataset)
        metrics: Metrics = {}
        items: dict[str, npt.NDArray[np.generic]] = {"sizes": np.array(self.sizes)}
        for index, (name, stream) in enumerate(sets.items()):
            context.progress(f"drift: {name}", index / len(sets))
            if stream is not None and len(stream) < self.sizes[0]:
                continue
            seed = (context.seed, index)
            scored = None if stream is None else (stream, score(stream))
            found = self._streams(scored_pool, scored, seed, context.options.drift_streams)
            for test, p_values in found.items():
                items[f"{name}.{test}.p_values"] = p_values
                metrics |= self._metrics(f"{name}.{test}", p_values)
        return TaskResult(
            "drift",
            metrics,
            cost={"images": len(train) + sum(len(s) for s in sets.values() if s is not None)},
            warnings=_warnings(sets, self.sizes[0]),
            items=items,
        )

    def _scorer(self, fitted: Embeddings) -> Callable[[Embeddings], Scores]:
        """Distance to the 5th neighbour, by a detector that has images of its own."""
        detector = configure(detectors.get("knn"), {"k": _NEIGHBOUR}, noun="detector 'knn'")
        known = detector.fit(Observation(fitted))
        return lambda z: known.score(Observation(z))

    def _streams(
        self, pool: Scored, stream: Scored | None, seed: tuple[int, int], draws: int
    ) -> dict[str, PValues]:
        """P values of every test; without a stream it is taken from the pool itself."""
        found = {test: np.ones((draws, len(self.sizes))) for test in (*TESTS, SCORE)}
        for draw in range(draws):
            rng = np.random.default_rng([*seed, draw])
            order = rng.permutation(len(pool[0]))
            count = min(self.reference, len(order) // 2)
            rows, rest = order[:count], order[count:]
            source = pool if stream is None else stream
            new = rest if stream is None else rng.permutation(len(stream[0]))
            reference, images = pool[0][rows], source[0][new]
            scores, new_scores = pool[1][rows], source[1][new]
            for test, p_values in found.items():
                before = (0, 1.0)
                for look, size in enumerate(self.sizes):
                    seen = min(size, len(new))
                    # Nothing more to see: the answer is that of the look before.
                    p_value = before[1]
                    if seen > before[0]:
                        p_value = (
                            score_shift(scores, new_scores[:seen])
                            if test == SCORE
                            else TESTS[test](reference, images[:seen], rng)
                        )
                    p_values[draw, look] = p_value
                    before = (seen, p_value)
        return found

    def _metrics(self, prefix: str, p_values: PValues) -> Metrics:
        streams = len(p_values)
        alarms = int(np.count_nonzero(p_values[:, -1] < self.level))
        share = Metric(
            alarms / streams,
            clopper_pearson(alarms, streams),
            streams,
            higher_is_better=not prefix.startswith((f"{NO_DRIFT}.", f"{KNOWN}.")),
            ci_method="clopper_pearson",
        )
        metrics = {f"{prefix}.alarms": share}
        early = p_values < self.level / len(self.sizes)
        if 2 * np.count_nonzero(early.any(axis=1)) >= streams:
            first = np.where(early.any(axis=1), early.argmax(axis=1), len(self.sizes) - 1)
            delays = np.array(self.sizes)[first]
            median = censored_median(delays, np.asarray(early.any(axis=1)), self.sizes[-1])
            metrics[f"{prefix}.delay"] = replace(median, unit="images", higher_is_better=False)
        return metrics


def _check_names(context: Context) -> None:
    taken = sorted({NO_DRIFT, KNOWN} & {*context.ood, *context.shifted})
    if taken:
        raise InvalidInput(
            f"expected sets that are not called {NO_DRIFT!r} or {KNOWN!r}, as the task's own "
            f"streams are, got {', '.join(taken)}; rename the file or folder"
        )


def _warnings(sets: dict[str, Embeddings | None], least: int) -> tuple[str, ...]:
    return tuple(
        f"the set {name!r} has {len(stream)} images, fewer than the {least} of the first look"
        for name, stream in sets.items()
        if stream is not None and len(stream) < least
    )
