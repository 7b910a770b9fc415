"""Does the model notice images that are like none it was shown?"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from embedkit.data.dataset import Dataset
from embedkit.detect.detector import detectors, load_detector
from embedkit.detect.threshold import Threshold
from embedkit.errors import InvalidInput, NotFound
from embedkit.evaluate.context import CHUNK, Context, Which
from embedkit.evaluate.measurement.checks import leakage, shared_images
from embedkit.evaluate.measurement.figures import histogram
from embedkit.evaluate.measurement.gallery import novelty_gallery
from embedkit.evaluate.measurement.novelty import METRICS, Separation, separation_metrics
from embedkit.evaluate.measurement.novelty.observing import Observer
from embedkit.evaluate.measurement.novelty.protocols import (
    KNOWN,
    SetScores,
    broken_promise,
    full_spectrum,
    full_spectrum_names,
    group_means,
    group_names,
)
from embedkit.evaluate.measurement.partial import attempt
from embedkit.evaluate.statistics import FEW, Metric, Metrics, accuracy
from embedkit.evaluate.task import Figure, TaskResult, skipped, tasks
from embedkit.types import Scorer

__all__ = ["OutOfDistribution"]

SERVED = "served"
_ERROR = "served_score.max_abs_error"
_THRESHOLD = "served_threshold"


@tasks.register("ood")
@dataclass(frozen=True)
class OutOfDistribution:
    """Separation of the test images from each OOD set, by each detector.

    The detectors are fitted on the training embeddings, with labels where there are any. Where
    the server gives a novelty score of its own, that is the further detector ``served``, and
    ``served_score.max_abs_error`` compares it with the bundle's detector applied here.
    Where the bundle has a threshold, ``served_threshold.known.accepted`` is the share of test
    images whose served score it accepts, ``served_threshold.<set>.rejected`` what it rejects.

    Metrics: ``<set>.<detector>.auroc``, ``.aupr_id_positive``, ``.aupr_ood_positive``,
    ``.fpr95_id_positive``, ``.fpr95_ood_positive``; ``near_mean.<detector>.auroc`` and
    ``far_mean`` where sets are said to be near or far; ``full_spectrum.<set>.<detector>.auroc``
    with shifted known images (``measurement.novelty.protocols``). Items: ``<detector>.known``,
    ``<detector>.<set>`` and ``<detector>.<shifted set>``, the scores.

    Attributes:
        resamples: Bootstrap samples of each interval.
    """

    resamples: int = 1000

    def metric_names(self, context: Context) -> tuple[str, ...]:
        """Every metric that it may give here; none without an OOD set."""
        if not context.ood:
            return ()
        names = [
            f"{key}.{detector}.{metric}"
            for key in context.ood
            for detector in (*context.options.detectors, SERVED)
            for metric in METRICS
        ]
        shares = [f"{_THRESHOLD}.{key}.rejected" for key in context.ood]
        means = group_names(context, SERVED) + full_spectrum_names(context, SERVED)
        return (*names, *means, _ERROR, f"{_THRESHOLD}.{KNOWN}.accepted", *shares)

    def run(self, context: Context) -> TaskResult:
        """Fit, score, and compare the scores of known and novel images."""
        if not context.ood:
            return skipped("ood", "expected an OOD set, got none; add --ood DATA")
        _check_names(context)
        warnings = [*leakage(context), *_overlaps(context), *_small_sets(context)]
        scores = _fitted_scores(context, "served", warnings)
        baselines: dict[str, Metrics] = {}
        for which in context.baselines:
            found = _fitted_scores(context, which, warnings)
            if found:
                baselines[which] = self._metrics(context, found)
        extra: Metrics = {}
        own = attempt("score of the server's own", partial(_served_scores, context), warnings)
        if own:
            scores[SERVED] = own
            compared = partial(_compare_with_bundle, context, own, warnings)
            extra = attempt("comparison with the bundle's detector", compared, warnings) or {}
        sets = {**_sets(context), "train": context.train}
        return TaskResult(
            "ood",
            self._metrics(context, scores) | extra,
            baselines,
            cost={"images": sum(len(dataset) for dataset in sets.values())},
            status="ok" if scores else "failed",
            warnings=tuple(warnings),
            items={f"{d}.{s}": v for d, found in scores.items() for s, v in found.items()},
            figures=_figures(scores) | _gallery(context, scores),
        )

    def _metrics(self, context: Context, scores: dict[str, SetScores]) -> Metrics:
        metrics: Metrics = {}
        for detector, found in scores.items():
            for name in found:
                if name in context.ood:
                    prefix = f"{name}.{detector}"
                    metrics |= separation_metrics(
                        found[KNOWN], found[name], prefix, resamples=self.resamples
                    )
            metrics |= group_means(context, detector, found, resamples=self.resamples)
            metrics |= full_spectrum(context, detector, found)
        return metrics


def _check_names(context: Context) -> None:
    if KNOWN in {*context.ood, *context.shifted}:
        raise InvalidInput(f"expected an OOD set that is not called {KNOWN!r}, got one")
    both = sorted(set(context.ood) & set(context.shifted))
    if both:
        raise InvalidInput(f"expected sets that are either shifted or novel, got both: {both}")


def _sets(context: Context) -> dict[str, Dataset]:
    return {KNOWN: context.test, **context.ood, **context.shifted}


def _overlaps(context: Context) -> list[str]:
    """A warning for each OOD set that holds in-distribution images."""
    warnings = []
    for name, dataset in context.ood.items():
        shared = shared_images(dataset, context.test, context.train)
        if shared:
            warnings.append(
                f"{shared} of {len(dataset)} images of the OOD set {name!r} are also training "
                "or test images: no detector can separate those"
            )
    return warnings


def _small_sets(context: Context) -> list[str]:
    """A warning for each set of which too few images are there to say much."""
    warnings = []
    for key, dataset in _sets(context).items():
        n = len(dataset)
        if n < FEW:
            kind = "OOD" if key in context.ood else "shifted"
            what = "the test set" if key == KNOWN else f"the {kind} set {key!r}"
            warnings.append(
                f"{what} has {n} image{'' if n == 1 else 's'}, fewer than {FEW}: AUROC has a "
                "wide interval, AUPR and FPR95 have none"
            )
    return warnings


def _fitted_scores(context: Context, which: Which, warnings: list[str]) -> dict[str, SetScores]:
    """Scores by each detector that can be fitted on this model's embeddings.

    Baselines have no head, so that they are compared by the detectors that need none.
    """
    if attempt(f"baseline {which}", partial(context.embedder, which), warnings) is None:
        return {}
    observer = Observer(context, which)
    found = {
        name: attempt(f"{name} scores of {which}", partial(_scores, observer, name), warnings)
        for name in context.options.detectors
        if which == "served" or detectors.get(name)().needs == {"embeddings"}
    }
    return {name: scores for name, scores in found.items() if scores}


def _scores(observer: Observer, name: str) -> SetScores:
    """Fit one detector on the training images and score every other set."""
    context, detector = observer.context, detectors.get(name)()
    context.progress(f"{observer.which}: {name}", 0.5)
    fitted = detector.fit(observer.observe(context.train, detector.needs))
    return {
        key: fitted.score(observer.observe(dataset, fitted.needs))
        for key, dataset in _sets(context).items()
    }


def _served_scores(context: Context) -> SetScores | None:
    """The novelty that the server itself gives, or None if it gives none."""
    served = context.served
    if not isinstance(served, Scorer):
        return None
    found = {}
    for key, dataset in _sets(context).items():
        parts = []
        for start in range(0, len(dataset), CHUNK):
            context.progress(f"served novelty: {key}", start / len(dataset))
            try:
                novelty = served.score(dataset.images[start : start + CHUNK]).novelty
            except NotFound:
                return None
            if novelty is None:
                return None
            parts.append(novelty)
        found[key] = np.concatenate(parts)
    return found


def _compare_with_bundle(context: Context, own: SetScores, warnings: list[str]) -> Metrics:
    """The served score against the bundle's first detector on the served embeddings.

    The bundle's threshold is tried on the served scores of the test images.
    """
    if context.bundle is None or not context.bundle.names("detectors"):
        return {}
    name = context.bundle.names("detectors")[0]
    arrays = context.bundle.arrays(f"detectors/{name}.npz")
    fitted, observer = load_detector(name, arrays), Observer(context, "served")
    errors: list[npt.NDArray[np.float64]] = [
        np.abs(fitted.score(observer.observe(dataset, fitted.needs)) - own[key])
        for key, dataset in _sets(context).items()
    ]
    largest = float(np.concatenate(errors).max())
    n = sum(len(e) for e in errors)
    metrics: Metrics = {_ERROR: Metric(largest, None, n, unit="score", higher_is_better=False)}
    threshold = Threshold.from_arrays(arrays)
    if threshold is None:
        return metrics
    warnings += broken_promise(threshold, own[KNOWN])
    metrics[f"{_THRESHOLD}.{KNOWN}.accepted"] = accuracy(own[KNOWN] <= threshold.value)
    for key in context.ood:
        metrics[f"{_THRESHOLD}.{key}.rejected"] = accuracy(own[key] > threshold.value)
    return metrics


def _gallery(context: Context, scores: dict[str, SetScores]) -> dict[str, Figure]:
    """Pictures of the extremes by the first detector."""
    if not scores:
        return {}
    detector, found = next(iter(scores.items()))
    return {"extremes": novelty_gallery(context, found, KNOWN, detector)}


def _figures(scores: dict[str, SetScores]) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    for detector, found in scores.items():
        for name in [name for name in found if name != KNOWN]:
            key = f"{name}.{detector}"
            figures[f"{key}.roc"] = Separation(found[KNOWN], found[name]).roc(key)
            pair = {"known": found[KNOWN], name: found[name]}
            figures[f"{key}.scores"] = histogram(pair, f"Novelty by {detector}: {name}")
    return figures
