"""How small a change of the pixels changes the served model's mind?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from embedkit.bundle import Bundle
from embedkit.errors import InvalidInput, ModelMismatch, NotFound
from embedkit.evaluate.attack import Attack, attacks
from embedkit.evaluate.context import Context, Which
from embedkit.evaluate.measurement.checks import class_problem
from embedkit.evaluate.measurement.partial import attempt
from embedkit.evaluate.measurement.survival import censored_median
from embedkit.evaluate.measurement.trial import (
    Attacked,
    RandomNoise,
    Trial,
    attack_at,
    mean_shift,
    prepare_trial,
)
from embedkit.evaluate.measurement.trial_report import Runs, attack_figures, weaknesses
from embedkit.evaluate.statistics import Metrics
from embedkit.evaluate.surrogate import TorchEmbedder
from embedkit.evaluate.task import TaskResult, skipped, tasks
from embedkit.evaluate.threat import Threat

__all__ = ["Robustness"]

RAW_PIXEL_LIMIT = 4_000_000
"""Values in the bank of raw pixels up to which attacking that baseline by queries is cheap."""


@tasks.register("robustness")
@dataclass(frozen=True)
class Robustness:
    """Attacks on the served model's kNN decision (k = 20, T = 0.07) at several radii.

    ``pgd`` is white-box: PGD on the bundle's torch twin with two losses (away from the image's
    own embedding, and away from its class), rounded to 8 bits and replayed through the served
    model; the worse of the two counts. ``square`` is black-box, by queries to the served model.
    A number of test images fixed beforehand is examined, the first of a seeded order; those
    that the model handles correctly are attacked, and accuracies are shares of all examined.

    Metrics: ``accuracy`` (clean), ``<attack>.<radius>.accuracy``, ``.cosine_shift``,
    ``pgd.<radius>.twin_accuracy`` (before rounding, on the twin), and
    ``square.<radius>.median_queries`` (censored at the limit). Baselines: ``random_noise`` of
    the same radius, ``raw_pixels`` under Square, ``random_encoder`` under PGD.
    Items: ``index`` and ``handled`` of the examined images; for the attacked ones
    ``<attack>.<radius>.success``, ``.cosine_shift`` and ``.queries``.
    """

    def metric_names(self, context: Context) -> tuple[str, ...]:
        """Every metric that it may give here."""
        kinds = {"pgd": "twin_accuracy", "square": "median_queries"}
        names = [
            f"{attack}.{radius:g}.{kind}"
            for attack, own in kinds.items()
            for radius in context.options.radii_255
            for kind in ("accuracy", "cosine_shift", own)
        ]
        return ("accuracy", *names)

    def run(self, context: Context) -> TaskResult:
        """Attack, verify, and check that the attacks deserve the name."""
        problem = class_problem(context)
        if problem:
            return skipped("robustness", problem)
        warnings: list[str] = []
        surrogate = attempt("white-box attack", partial(_twin, context), warnings)
        trial = prepare_trial(context, "served", surrogate=surrogate)
        warnings += _few_images(trial, context)
        noise = _at_each_radius([RandomNoise()], trial, context)
        runs: dict[str, Runs] = {}
        if surrogate is not None:
            runs["pgd"] = _at_each_radius(_white_box(context), trial, context)
        runs["square"] = _at_each_radius([_black_box(context)], trial, context)
        baselines = {"random_noise": _noise_metrics(trial, noise, runs)}
        baselines |= _other_models(context, warnings, with_gradients=surrogate is not None)
        names = context.train.class_names
        return TaskResult(
            "robustness",
            _metrics(trial, runs, context),
            baselines,
            cost=_cost(trial, [noise, *runs.values()]),
            warnings=(*warnings, *_censored(runs), *weaknesses(trial, runs, noise)),
            items=_items(trial, runs),
            figures=attack_figures(trial, runs, noise, names, context.options.grid_rows),
        )


def _twin(context: Context) -> TorchEmbedder:
    """The differentiable twin of the model that is served, and of no other."""
    model = context.embedder("twin")
    bundle = context.bundle
    if not isinstance(model, TorchEmbedder) or bundle is None:
        raise NotFound("expected a twin with gradients, got one without")
    if context.served.digest not in _digests(bundle):
        raise ModelMismatch(
            f"expected the bundle of the served model {context.served.digest}, got "
            f"{bundle.path} with {bundle.model_digest()}"
        )
    return model


def _digests(bundle: Bundle) -> set[str]:
    """Digest of each precision in the bundle; all have the same twin."""
    found = set()
    for precision in ("fp32", "fp16", "int8"):
        try:
            found.add(bundle.model_digest(precision))
        except NotFound:
            continue
    return found


def _white_box(context: Context) -> list[Attack]:
    make: Callable[..., Attack] = attacks.get("pgd")
    steps = context.options.pgd_steps
    return [make(steps=steps, loss="cosine"), make(steps=steps, loss="class")]


def _black_box(context: Context) -> Attack:
    make: Callable[..., Attack] = attacks.get("square")
    return make(queries=context.options.square_queries)


def _at_each_radius(methods: Sequence[Attack], trial: Trial, context: Context) -> Runs:
    """Attack at each radius, smallest first."""
    runs: dict[float, Attacked] = {}
    radii = sorted(set(context.options.radii_255))
    if not radii:
        raise InvalidInput("expected at least one radius to attack at, got none")
    for done, radius in enumerate(radii):
        name = type(methods[0]).__name__
        context.progress(f"{name} at radius {radius:g}", done / len(radii))
        threat = Threat("linf", radius, context.options.square_queries)
        runs[radius] = attack_at(trial, methods, threat, seed=context.seed)
    return runs


def _metrics(trial: Trial, runs: Mapping[str, Runs], context: Context) -> Metrics:
    metrics: Metrics = {"accuracy": trial.accuracy(np.zeros(len(trial.clean), bool))}
    for name, outcomes in runs.items():
        for radius, run in outcomes.items():
            prefix = f"{name}.{radius:g}"
            metrics[f"{prefix}.accuracy"] = trial.accuracy(run.outcome.success)
            if run.twin_success is not None:
                metrics[f"{prefix}.twin_accuracy"] = trial.accuracy(run.twin_success)
            if name == "square":
                metrics[f"{prefix}.median_queries"] = censored_median(
                    run.outcome.queries, run.outcome.success, context.options.square_queries
                )
            metrics[f"{prefix}.cosine_shift"] = mean_shift(run.shift)
    return metrics


def _noise_metrics(trial: Trial, noise: Runs, runs: Mapping[str, Runs]) -> Metrics:
    """Noise under the name of each attack, so that the two stand side by side."""
    metrics: Metrics = {}
    for name in runs:
        for radius, run in noise.items():
            metrics[f"{name}.{radius:g}.accuracy"] = trial.accuracy(run.outcome.success)
            metrics[f"{name}.{radius:g}.cosine_shift"] = mean_shift(run.shift)
    return metrics


def _other_models(
    context: Context, warnings: list[str], *, with_gradients: bool
) -> dict[str, Metrics]:
    """The same attacks on models that learned nothing, where that is cheap."""
    baselines: dict[str, Metrics] = {}
    pixels = attempt("baseline raw_pixels", partial(_raw_pixels, context), warnings)
    if pixels is not None:
        baselines["raw_pixels"] = pixels
    if with_gradients:
        random = attempt("baseline random_encoder", partial(_random_encoder, context), warnings)
        if random is not None:
            baselines["random_encoder"] = random
    return baselines


def _raw_pixels(context: Context) -> Metrics:
    size = len(context.train) * context.embedder("raw_pixels").dim
    if size > RAW_PIXEL_LIMIT:
        raise InvalidInput(
            f"expected at most {RAW_PIXEL_LIMIT} values in the bank, got {size}; attacking it "
            "by queries takes too long, random_noise is the baseline"
        )
    trial = prepare_trial(context, "raw_pixels")
    runs = {"square": _at_each_radius([_black_box(context)], trial, context)}
    return _metrics(trial, runs, context)


def _random_encoder(context: Context) -> Metrics:
    which: Which = "random_encoder"
    model = context.embedder(which)
    if not isinstance(model, TorchEmbedder):
        raise NotFound("expected an untrained twin with gradients, got one without")
    trial = prepare_trial(context, which, surrogate=model)
    metrics = _metrics(
        trial, {"pgd": _at_each_radius(_white_box(context), trial, context)}, context
    )
    # It is its own twin: a second number for the same thing would say nothing.
    return {name: m for name, m in metrics.items() if not name.endswith("twin_accuracy")}


def _few_images(trial: Trial, context: Context) -> list[str]:
    examined, wanted = len(trial.positions), context.options.attack_images
    if examined >= wanted:
        return []
    return [f"{examined} images are examined, not {wanted}: there are no more test images"]


def _censored(runs: Mapping[str, Runs]) -> list[str]:
    radii = [
        f"{radius:g}"
        for radius, run in runs["square"].items()
        if np.count_nonzero(run.outcome.success) * 2 < len(run.outcome.success)
    ]
    if not radii:
        return []
    return [
        f"square.median_queries is a lower bound at radius {', '.join(radii)}: fewer than half "
        "of the images were fooled within the limit"
    ]


def _cost(trial: Trial, everything: Sequence[Runs]) -> dict[str, float]:
    """Images and calls of the served model; the attacks' own queries apart."""
    attacked = [run for runs in everything for run in runs.values()]
    outcomes = [run.outcome for run in attacked]
    return {
        "images": len(trial.positions) + sum(run.verified for run in attacked),
        "queries": sum(outcome.usage.images for outcome in outcomes),
        "query_calls": sum(outcome.usage.calls for outcome in outcomes),
        "query_bytes": sum(outcome.usage.bytes_sent for outcome in outcomes),
    }


def _items(trial: Trial, runs: Mapping[str, Runs]) -> dict[str, npt.NDArray[np.generic]]:
    items: dict[str, npt.NDArray[np.generic]] = {
        "index": trial.positions,
        "handled": trial.handled,
        "labels": trial.head.labels,
    }
    for name, outcomes in runs.items():
        for radius, run in outcomes.items():
            prefix = f"{name}.{radius:g}"
            items[f"{prefix}.success"] = run.outcome.success
            items[f"{prefix}.cosine_shift"] = run.shift
            if run.twin_success is not None:
                items[f"{prefix}.twin_success"] = run.twin_success
            if name == "square":
                items[f"{prefix}.queries"] = run.outcome.queries
    return items
