"""How much does it forget when images are noisy, blurred, covered or coded anew?"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from embedkit.data.dataset import Dataset
from embedkit.evaluate.context import Context
from embedkit.evaluate.corruption import SMALL_PX, corrupt, expand
from embedkit.evaluate.measurement.changed.mce import (
    Float64,
    Reference,
    Severities,
    alexnet,
    relative_errors,
)
from embedkit.evaluate.measurement.changed.shift import Case, Follower, Shift, follow
from embedkit.evaluate.measurement.checks import class_problem
from embedkit.evaluate.measurement.figures import image_grid
from embedkit.evaluate.measurement.means import mean_metric
from embedkit.evaluate.measurement.partial import attempt
from embedkit.evaluate.statistics import Metric, Metrics, random_groups, wilson
from embedkit.evaluate.task import Figure, TaskResult, tasks
from embedkit.perturb.randomness import keys_of
from embedkit.types import Images

__all__ = ["CorruptionRobustness"]

_REFERENCE_BANK = 5000
_IMAGENET_CLASSES = 1000
_SHOWN = 4
_FAMILIES = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "gaussian_blur"),
    "weather": ("snow", "frost", "fog", "brightness", "spatter"),
    "digital": (
        *("contrast", "elastic_transform", "pixelate", "jpeg_compression", "saturate"),
        *("jpeg_recode", "resize_filter"),
    ),
    "geometry": ("shear", "rotate", "scale", "translate"),
}


@tasks.register("corruption")
@dataclass(frozen=True)
class CorruptionRobustness:
    """Errors and drift of the embeddings of corrupted test images.

    The decision is the vote of 20 training images (T = 0.07). ``<name>.<severity>.error`` is
    its error, ``.drift`` the mean of 1 - cosine with the clean image's embedding, ``.overlap``
    the share of the 10 nearest training images that stay. ``<name>.error`` is the mean over the
    severities, ``error`` that over the corruptions (as reported for CIFAR-10-C), likewise
    ``drift`` and ``overlap``.

    ``mce`` divides each corruption's error, summed over severities, by that of a reference
    before the mean; ``relative_mce`` does so with the rise over the clean error (Hendrycks and
    Dietterich 2019). The reference is AlexNet for the 1,000 classes of ImageNet at all five
    severities, and otherwise the same vote on raw pixels (with at most 5,000 training images),
    whose errors are the baseline ``raw_pixels``.
    Their intervals are those of the jackknife that leaves out a twentieth of the images at a
    time, from the model's and from the reference's errors alike.

    Items: ``ids``, ``labels``, ``clean_wrong``, and per case ``<name>.<severity>.wrong``,
    ``.drift``, ``.overlap``; ``reference_<name>`` (severities, images) with raw pixels.
    """

    def metric_names(self, context: Context) -> tuple[str, ...]:
        """Every metric that it may give here."""
        cases, _ = expand(context.options.corruptions, context.options.severities)
        kinds = ("error", "drift", "overlap")
        names = [
            f"{name}.{part}{kind}"
            for name, severities in cases.items()
            for part in ("", *(f"{s}." for s in severities))
            for kind in kinds
        ]
        return (*names, *kinds, "clean_error", "mce", "relative_mce")

    def run(self, context: Context) -> TaskResult:
        """Corrupt, embed and compare with the clean images."""
        names, constants = expand(context.options.corruptions, context.options.severities)
        cases = [(name, severity) for name, each in names.items() for severity in each]
        part = _part(context)
        images = part.arrays(context.spec)

        def spoilt(case: Case, count: int | None = None) -> Images:
            ids, seed = part.ids[:count], context.seed
            return corrupt(images[:count], *case, ids=ids, seed=seed, constants=constants)

        problem = class_problem(context)
        warnings = [f"no errors: {problem}"] if problem else []
        clean = Dataset("clean", images, part.labels, part.class_names)
        served = Follower(context, "served", clean, context.train, not problem)
        reference = None if problem else _alexnet(context, names, len(part))
        followers = [served]
        if not problem and reference is None:
            work = partial(Follower, context, "raw_pixels", clean, _bank(context), True)
            pixels = attempt("mce and relative_mce", work, warnings)
            followers += [] if pixels is None else [pixels]
        found = follow(followers, cases, spoilt, context.progress)
        metrics = _metrics(found[0], names)
        items = _items(found[0]) | {"ids": np.array(part.ids)}
        unspoilt = served.clean()
        if unspoilt.wrong is not None:
            metrics["clean_error"] = _error(unspoilt.wrong[np.newaxis])
            items |= {"labels": np.asarray(part.labels), "clean_wrong": unspoilt.wrong}
        baselines: dict[str, Metrics] = {}
        if len(followers) > 1:
            baselines["raw_pixels"] = _errors(followers[1].clean(), found[1], names)
            reference = _of_pixels(followers[1].clean(), found[1], names, items)
        if reference is not None:
            own = _mean_errors(found[0], names)
            own_clean = np.asarray(unspoilt.wrong, np.float64)
            groups = random_groups(keys_of(part.ids, context.seed))
            ratios = relative_errors(own, own_clean, reference, groups)
            metrics |= ratios
            if "relative_mce" not in ratios:
                warnings.append("no relative_mce: the reference has no further errors")
        return TaskResult(
            "corruption",
            metrics,
            baselines,
            cost={"images": len(part) * (len(cases) + 1)},
            warnings=tuple(warnings),
            items=items,
            figures=_figures(metrics, names, images, spoilt),
        )


def _part(context: Context) -> Dataset:
    """The test images that are corrupted, a seeded choice."""
    count = context.options.corruption_images or len(context.test)
    order = np.random.default_rng(context.seed).permutation(len(context.test))
    return context.test.subset(np.sort(order[:count]))


def _bank(context: Context) -> Dataset:
    """The training images that vote by their pixels, a seeded choice."""
    order = np.random.default_rng(context.seed).permutation(len(context.train))
    return context.train.subset(np.sort(order[:_REFERENCE_BANK]))


def _metrics(found: dict[Case, Shift], names: Severities) -> Metrics:
    """Of each case, each corruption and all of them."""
    metrics: Metrics = {}
    everything: dict[str, list[npt.NDArray[np.float64]]] = {}
    for name, severities in names.items():
        for kind in ("error", "drift", "overlap"):
            values = [_values(found[name, s], kind) for s in severities]
            known = [value for value in values if value is not None]
            if len(known) < len(severities):
                continue
            for severity, value in zip(severities, known, strict=True):
                metrics[f"{name}.{severity}.{kind}"] = _metric(kind, value[np.newaxis])
            metrics[f"{name}.{kind}"] = _metric(kind, np.stack(known))
            everything.setdefault(kind, []).append(np.mean(known, axis=0))
    summary = {kind: _metric(kind, np.stack(values)) for kind, values in everything.items()}
    return summary | metrics


def _errors(clean: Shift, found: dict[Case, Shift], names: Severities) -> Metrics:
    """Every error of a reference, under the names that those of the model have."""
    metrics = _metrics(found, names)
    errors = {name: m for name, m in metrics.items() if name.split(".")[-1] == "error"}
    return errors | {"clean_error": _error(np.asarray(clean.wrong)[np.newaxis])}


def _values(shift: Shift, kind: str) -> npt.NDArray[np.float64] | None:
    if kind == "error":
        return None if shift.wrong is None else shift.wrong.astype(np.float64)
    return shift.drift if kind == "drift" else shift.overlap


def _metric(kind: str, values: npt.NDArray[np.float64]) -> Metric:
    """The mean over cases and images, (cases, n); the interval is over the images."""
    if kind == "error":
        return _error(values)
    mean = values.mean(axis=0)
    if kind == "drift":
        return mean_metric(mean, unit="cosine", higher_is_better=False, least=0, most=2)
    return mean_metric(mean, least=0, most=1)


def _error(wrong: npt.NDArray[np.floating] | npt.NDArray[np.bool_]) -> Metric:
    # All right or all wrong, at every severity: a share too, and no spread to go by.
    if len(wrong) == 1 or wrong.max() == 0 or wrong.min() == 1:
        count, n = int(wrong[0].sum()), wrong.shape[1]
        return Metric(count / n, wilson(count, n), n, "fraction", False, "wilson")
    return mean_metric(wrong.mean(axis=0), higher_is_better=False, least=0, most=1)


def _items(found: dict[Case, Shift]) -> dict[str, npt.NDArray[np.generic]]:
    items: dict[str, npt.NDArray[np.generic]] = {}
    for (name, severity), shift in found.items():
        items[f"{name}.{severity}.drift"] = shift.drift
        items[f"{name}.{severity}.overlap"] = shift.overlap
        if shift.wrong is not None:
            items[f"{name}.{severity}.wrong"] = shift.wrong
    return items


def _alexnet(context: Context, names: Severities, n: int) -> Reference | None:
    """Errors of AlexNet, where they are the reference of these data."""
    is_large = max(context.spec.height, context.spec.width) > SMALL_PX
    if len(context.test.class_names) != _IMAGENET_CLASSES or not is_large:
        return None
    return alexnet(names, n)


def _of_pixels(
    clean: Shift,
    found: dict[Case, Shift],
    names: Severities,
    items: dict[str, npt.NDArray[np.generic]],
) -> Reference:
    """Errors of raw pixels per corruption, and without one; kept in the items."""
    for name, severities in names.items():
        items[f"reference_{name}"] = np.stack(
            [np.asarray(found[name, s].wrong) for s in severities]
        )
    items["reference_clean_wrong"] = np.asarray(clean.wrong)
    return _mean_errors(found, names), np.asarray(clean.wrong, np.float64)


def _mean_errors(found: dict[Case, Shift], names: Severities) -> dict[str, Float64]:
    """Error of each image, mean over the severities, by corruption."""
    return {
        name: np.mean([np.asarray(found[name, s].wrong) for s in severities], axis=0)
        for name, severities in names.items()
    }


def _figures(
    metrics: Metrics,
    names: Severities,
    images: Images,
    spoilt: Callable[[Case, int], Images],
) -> dict[str, Figure]:
    """Error over severity by kind of corruption, and what the corruptions look like."""
    figures: dict[str, Figure] = {}
    kind = "error" if "error" in metrics else "drift"
    for title, members in _FAMILIES.items():
        shown = [name for name in names if name in members]
        severities = sorted({s for name in shown for s in names[name]})
        if len(severities) < 2:
            continue
        series = {}
        for name in shown:
            each = [metrics[f"{name}.{s}.{kind}"] for s in names[name]]
            ends = [metric.ci or (metric.value, metric.value) for metric in each]
            series[name.replace("_", " ")] = {
                "y": [metric.value for metric in each],
                "lo": [low for low, _ in ends],
                "hi": [high for _, high in ends],
            }
        figures[title] = {
            "kind": "curve",
            "title": f"{kind.capitalize()} by severity: {title}",
            "x": severities,
            "series": series,
            "xlabel": "severity",
            "ylabel": kind,
        }
    rows = []
    shown_images = images[:_SHOWN]
    for name, steps in names.items():
        worst = spoilt((name, steps[-1]), _SHOWN)
        pairs = [np.stack([shown_images[i], worst[i]]) for i in range(len(worst))]
        rows.append((f"{name.replace('_', ' ')}, severity {steps[-1]}", np.concatenate(pairs)))
    figures["examples"] = image_grid(rows, "Test images and their corrupted versions")
    return figures
