"""How good is it with a handful of labels per class?"""

import math
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from embedkit.evaluate.context import Context, Which
from embedkit.evaluate.measurement.checks import class_problem, leakage
from embedkit.evaluate.measurement.partial import attempt
from embedkit.evaluate.statistics import LEVEL, Metric, Metrics
from embedkit.evaluate.task import Figure, TaskResult, skipped, tasks
from embedkit.measures.probes import nearest_centroid
from embedkit.runtime.probe import fit_probe
from embedkit.types import Labels

__all__ = ["FewShot"]

Draws = dict[int, list[npt.NDArray[np.int64]]]
Found = dict[str, npt.NDArray[np.bool_]]
"""Whether each test image is right in each draw, (draws, m), by metric."""


@tasks.register("few_shot")
@dataclass(frozen=True)
class FewShot:
    """Accuracy with n training images per class, over several draws of them.

    ``top1_n<n>`` takes the nearest class mean by cosine, ``top1_logistic_n<n>`` logistic
    regression with C = 1 on standardised embeddings (of the served model alone). Both are means
    over the draws; their interval holds the spread of the draws and that of the test images.
    ``<metric>_sd`` is the standard deviation over the draws alone.

    Metrics: as above. Items: ``correct_<metric>`` (draws, images) and ``draws_n<n>``, the
    training images of each draw.

    Attributes:
        strength: C of the logistic regression.
    """

    strength: float = 1.0

    def metric_names(self, context: Context) -> tuple[str, ...]:
        """Every metric that it may give here."""
        names = [
            f"top1{kind}_n{n}" for n in context.options.shots for kind in ("", "_logistic")
        ]
        return tuple(name for base in names for name in (base, f"{base}_sd"))

    def run(self, context: Context) -> TaskResult:
        """Draw, fit and score, for the model and the baselines on the same draws."""
        problem = class_problem(context)
        if problem:
            return skipped("few_shot", problem)
        warnings = list(leakage(context))
        draws = _draws(context, warnings)
        if not draws:
            return skipped("few_shot", warnings[-1])
        served = self._correct(context, "served", draws, logistic=True)
        baselines: dict[str, Metrics] = {}
        for name in context.baselines:
            work = partial(self._correct, context, name, draws, logistic=False)
            found = attempt(f"baseline {name}", work, warnings)
            if found is not None:
                baselines[name] = _metrics(found)
        items: dict[str, npt.NDArray[np.generic]] = {
            f"correct_{name}": right for name, right in served.items()
        }
        items |= {f"draws_n{n}": np.stack(chosen) for n, chosen in draws.items()}
        return TaskResult(
            "few_shot",
            _metrics(served),
            baselines,
            cost={"images": len(context.train) + len(context.test)},
            warnings=tuple(warnings),
            items=items,
            figures={"shots": _curve(served, baselines)},
        )

    def _correct(
        self, context: Context, which: Which, draws: Draws, *, logistic: bool
    ) -> Found:
        train = context.embeddings(which, context.train)
        test = context.embeddings(which, context.test)
        known, wanted = np.asarray(context.train.labels), np.asarray(context.test.labels)
        names = context.train.class_names
        found: Found = {}
        for n, chosen in draws.items():
            context.progress(f"{which}: {n} images per class", 0.5)
            means = [
                nearest_centroid(train[rows], known[rows], test, classes=len(names))
                for rows in chosen
            ]
            found[f"top1_n{n}"] = np.stack(means) == wanted
            if logistic:
                fits = [
                    fit_probe(
                        train[rows], known[rows], class_names=names, cs=(self.strength,)
                    ).head.logits(test)
                    for rows in chosen
                ]
                found[f"top1_logistic_n{n}"] = np.stack(fits).argmax(axis=2) == wanted
        return found


def _draws(context: Context, warnings: list[str]) -> Draws:
    """Ascending rows of n images of each class, by n; classes with fewer rule an n out."""
    labels: Labels = np.asarray(context.train.labels)
    classes, counts = np.unique(labels, return_counts=True)
    found: Draws = {}
    for n in sorted(context.options.shots):
        if n > counts.min():
            rare = context.train.class_names[classes[counts.argmin()]]
            warnings.append(
                f"no {n} images per class: {rare!r} has {counts.min()} training images"
            )
            continue
        found[n] = []
        for draw in range(context.options.shot_draws):
            rng = np.random.default_rng([context.seed, n, draw])
            rows = [rng.choice(np.flatnonzero(labels == c), n, replace=False) for c in classes]
            found[n].append(np.sort(np.concatenate(rows)))
    return found


def _metrics(found: Found) -> Metrics:
    metrics: Metrics = {}
    for name, right in found.items():
        draws, n = right.shape
        shares = right.mean(axis=1)
        value = float(shares.mean())
        metrics[name] = Metric(
            value, _interval(shares, value, n), n, ci_method="draws_and_images"
        )
        if draws > 1:
            spread = float(shares.std(ddof=1))
            metrics[f"{name}_sd"] = Metric(spread, None, draws, higher_is_better=False)
    return metrics


def _interval(
    shares: npt.NDArray[np.float64], value: float, images: int
) -> tuple[float, float]:
    """Both spreads together: of the draws by Student's t, of the test images as Wilson's."""
    from scipy.special import stdtrit

    draws = len(shares)
    of_draws = 0.0
    if draws > 1:
        quantile = float(stdtrit(draws - 1, 0.5 + LEVEL / 2))
        of_draws = quantile * float(shares.std(ddof=1)) / math.sqrt(draws)
    z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
    scale = 1 + z * z / images
    centre = (value + z * z / (2 * images)) / scale
    half = z / scale * math.sqrt(value * (1 - value) / images + (z / (2 * images)) ** 2)
    low = value - math.hypot(of_draws, value - max(centre - half, 0.0))
    high = value + math.hypot(of_draws, min(centre + half, 1.0) - value)
    return max(low, 0.0), min(high, 1.0)


def _curve(served: Found, baselines: dict[str, Metrics]) -> Figure:
    """Accuracy of the class means over n, with intervals, beside the baselines."""
    names = [name for name in served if "logistic" not in name]
    lines = {"model": _metrics(served), **baselines}
    return {
        "kind": "curve",
        "title": "Accuracy with few labels (nearest class mean)",
        "x": [int(name.removeprefix("top1_n")) for name in names],
        "series": {
            who: {
                "y": [metrics[name].value for name in names],
                "lo": [(metrics[name].ci or (0, 0))[0] for name in names],
                "hi": [(metrics[name].ci or (0, 0))[1] for name in names],
            }
            for who, metrics in lines.items()
        },
        "xlabel": "training images per class",
        "ylabel": "accuracy",
    }
