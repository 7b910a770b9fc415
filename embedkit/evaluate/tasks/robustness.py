"""How small a change of the pixels changes the served model's mind?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from embedkit.bundle import Bundle
from embedkit.errors import InvalidInput, ModelMismatch, NotFound
from embedkit.evaluate.context import Context, Which
from embedkit.evaluate.measurement.checks import class_problem
from embedkit.evaluate.measurement.partial import attempt
from embedkit.evaluate.measurement.trial.attacking import Trial
from embedkit.evaluate.measurement.trial.figures import attack_figures
from embedkit.evaluate.measurement.trial.prepare import (
    heads_of,
    prepare_trial,
    served_search,
)
from embedkit.evaluate.measurement.trial.results import (
    censored_medians,
    kinds_of,
    noise_metrics,
    trial_cost,
    trial_items,
    trial_metrics,
)
from embedkit.evaluate.measurement.trial.running import (
    attack_everywhere,
    check_runs,
    known_threats,
    needs_gradient,
    threats_of,
)
from embedkit.evaluate.measurement.trial.sanity import Check, check_table, sanity_checks
from embedkit.evaluate.statistics import Metric, Metrics
from embedkit.evaluate.surrogate import TorchEmbedder
from embedkit.evaluate.task import Figure, TaskResult, skipped, tasks

__all__ = ["Robustness"]

RAW_PIXEL_LIMIT = 4_000_000
"""Values in the bank of raw pixels up to which attacking that baseline by queries is cheap."""

_NEED_LABELS = ("knn", "linear")


@tasks.register("robustness")
@dataclass(frozen=True)
class Robustness:
    """Attacks on the served model's decisions under several threats.

    Attacks, threats and attacked decisions (heads) are the run's options. Attacks by gradient
    climb on the bundle's torch twin; what they find is rounded to 8 bits and replayed through
    the served model. The others query the served model. A number of images fixed beforehand is
    examined, the first of a seeded order; those that the model handles correctly are attacked,
    and accuracies are shares of all examined.

    Metrics of the kNN vote (k = 20, T = 0.07): ``accuracy`` (clean) and, with ``<threat>`` the
    linf radius, ``l2_<radius>`` or ``patch_<side>``: ``<attack>.<threat>.accuracy``,
    ``.cosine_shift``, ``.png_accuracy`` and ``.jpeg_accuracy`` (the same images sent as files);
    of attacks by gradient ``.twin_accuracy`` (on the twin, before rounding) and
    ``.twin_uint8_accuracy``; of those by queries ``.median_queries`` (censored at the limit).
    ``worst.<threat>.accuracy`` is the worst over all attacks, image by image, if there are
    several. Other heads put their name before: ``linear.pgd.8.accuracy``. ``checks_failed``
    counts the signs of weak attacks or masked gradients. Baselines: ``random_noise`` of the
    same size, ``raw_pixels`` under queries, ``random_encoder`` under gradients.
    Items, under the same names: ``index`` and ``handled`` of the examined images; for the
    attacked ones ``<attack>.<threat>.success``, ``.cosine_shift``, ``.queries`` (all sent),
    ``.queries_needed`` (until the first success) and ``.nearest`` (distance of the nearest
    image that fooled, inside the threat or not).
    """

    def metric_names(self, context: Context) -> tuple[str, ...]:
        """Every metric that it may give here.

        Raises:
            InvalidInput: If no attack knows one of the norms, or a setting is impossible.
        """
        options = context.options
        names = []
        for head in heads_of(context):
            prefix = _prefix(head)
            names += [f"{prefix}accuracy", f"{prefix}checks_failed"]
            if len(options.attacks) > 1:
                names += [f"{prefix}worst.{t.name}.accuracy" for t in threats_of(context)]
            names += [
                f"{prefix}{attack}.{threat.name}.{kind}"
                for attack in options.attacks
                for threat in known_threats(attack, context)
                for kind in kinds_of(attack)
            ]
        return tuple(names)

    def run(self, context: Context) -> TaskResult:
        """Attack, verify, and check that the attacks deserve the name."""
        threats_of(context)
        heads, problem = heads_of(context), class_problem(context)
        warnings: list[str] = []
        if problem:
            heads = tuple(head for head in heads if head not in _NEED_LABELS)
            if not heads:
                return skipped("robustness", problem)
            warnings.append(problem)
        surrogate = None
        if any(map(needs_gradient, context.options.attacks)):
            surrogate = attempt("white-box attack", partial(_twin, context), warnings)
        if surrogate is None and all(map(needs_gradient, context.options.attacks)):
            return skipped("robustness", warnings[-1])
        parts = [_attack_head(context, head, surrogate, warnings) for head in heads]
        found = [part for part in parts if part is not None]
        if not found:
            raise InvalidInput(warnings[-1])
        return _joined(found, warnings)


@dataclass(frozen=True)
class _Part:
    """The results of one head."""

    metrics: Metrics
    baselines: Mapping[str, Metrics]
    cost: Mapping[str, float]
    items: Mapping[str, npt.NDArray[np.generic]]
    figures: Mapping[str, Figure]


def _attack_head(
    context: Context, head: str, surrogate: TorchEmbedder | None, warnings: list[str]
) -> _Part | None:
    """Attack one decision; None, with a warning, if it cannot be attacked here."""
    with served_search(context, head, warnings) as search:
        prepare = partial(
            prepare_trial, context, "served", head=head, surrogate=surrogate, search=search
        )
        return _attack_prepared(context, head, prepare, warnings)


def _attack_prepared(
    context: Context, head: str, prepare: Callable[[], Trial], warnings: list[str]
) -> _Part | None:
    """Attack one decision once its search is there."""
    # The one head of a run without others fails as the task does.
    trial = prepare() if head == "knn" else attempt(f"attack on {head}", prepare, warnings)
    if trial is None:
        return None
    surrogate = trial.target.surrogate
    prefix, options, names = _prefix(head), context.options, context.train.class_names
    warnings += _few_images(trial, context, prefix)
    wanted = [a for a in options.attacks if surrogate is not None or not needs_gradient(a)]
    known = len(warnings)
    everything = attack_everywhere(trial, wanted, context, warnings)
    if not everything.runs:
        why = "; ".join(warnings[known:]) or f"{', '.join(options.attacks)} cannot run"
        warnings.append(f"no attack on {head}: {why}")
        return None
    if options.attack_checks:
        everything = replace(everything, extra=check_runs(trial, everything, context))
    checks = sanity_checks(trial, everything.runs, everything.noise, everything.extra)
    metrics = trial_metrics(trial, everything.runs, context)
    metrics["checks_failed"] = _failed(checks)
    baselines = {"random_noise": noise_metrics(trial, everything)}
    if head == "knn" and context.baselines:
        baselines |= _other_models(context, warnings, with_gradients=surrogate is not None)
    warnings += [f"{prefix}{text}" for check in checks for text in check.problems]
    warnings += censored_medians(everything.runs, prefix)
    figures = attack_figures(
        trial,
        everything.runs,
        everything.noise,
        names,
        options.grid_rows,
        options.square_queries,
    )
    figures["checks"] = check_table(checks)
    return _Part(
        _named(metrics, prefix),
        {name: _named(each, prefix) for name, each in baselines.items()},
        trial_cost(trial, everything),
        {prefix + name: values for name, values in trial_items(trial, everything.runs).items()},
        {
            prefix + name: figure | {"title": f"{prefix}{figure['title']}"}
            for name, figure in figures.items()
        },
    )


def _joined(parts: Sequence[_Part], warnings: list[str]) -> TaskResult:
    """One result for all heads."""
    first = parts[0]
    result = TaskResult("robustness", cost=dict.fromkeys(first.cost, 0.0))
    for part in parts:
        baselines = {
            name: {**result.baselines.get(name, {}), **part.baselines.get(name, {})}
            for name in (*result.baselines, *part.baselines)
        }
        result = replace(
            result,
            metrics={**result.metrics, **part.metrics},
            baselines=baselines,
            cost={name: result.cost[name] + part.cost[name] for name in result.cost},
            items={**result.items, **part.items},
            figures={**result.figures, **part.figures},
        )
    return replace(result, warnings=tuple(dict.fromkeys(warnings)))


def _prefix(head: str) -> str:
    """The kNN vote is the model's decision unless another is named."""
    return "" if head == "knn" else f"{head}."


def _named(metrics: Metrics, prefix: str) -> Metrics:
    return {prefix + name: metric for name, metric in metrics.items()}


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
    return {bundle.model_digest(precision) for precision in bundle.precisions}


def _failed(checks: Sequence[Check]) -> Metric:
    failed = sum(bool(check.problems) for check in checks)
    return Metric(float(failed), None, len(checks), "checks", higher_is_better=False)


def _other_models(
    context: Context, warnings: list[str], *, with_gradients: bool
) -> dict[str, Metrics]:
    """The first attack of each kind on models that learned nothing, where that is cheap."""
    baselines: dict[str, Metrics] = {}
    names = context.options.attacks
    black = [name for name in names if not needs_gradient(name)][:1]
    white = [name for name in names if needs_gradient(name)][:1]
    if black:
        pixels = attempt(
            "baseline raw_pixels", partial(_raw_pixels, context, black, warnings), warnings
        )
        if pixels is not None:
            baselines["raw_pixels"] = pixels
    if white and with_gradients:
        random = attempt(
            "baseline random_encoder",
            partial(_random_encoder, context, white, warnings),
            warnings,
        )
        if random is not None:
            baselines["random_encoder"] = random
    return baselines


def _raw_pixels(context: Context, names: Sequence[str], warnings: list[str]) -> Metrics:
    size = len(context.train) * context.embedder("raw_pixels").dim
    if size > RAW_PIXEL_LIMIT:
        raise InvalidInput(
            f"expected at most {RAW_PIXEL_LIMIT} values in the bank, got {size}; attacking it "
            "by queries takes too long, random_noise is the baseline"
        )
    trial = prepare_trial(context, "raw_pixels")
    runs = attack_everywhere(trial, names, context, warnings).runs
    return trial_metrics(trial, runs, context)


def _random_encoder(context: Context, names: Sequence[str], warnings: list[str]) -> Metrics:
    which: Which = "random_encoder"
    model = context.embedder(which)
    if not isinstance(model, TorchEmbedder):
        raise NotFound("expected an untrained twin with gradients, got one without")
    trial = prepare_trial(context, which, surrogate=model)
    runs = attack_everywhere(trial, names, context, warnings).runs
    metrics = trial_metrics(trial, runs, context)
    # It is its own twin: further numbers for the same thing would say nothing.
    return {name: m for name, m in metrics.items() if ".twin" not in name}


def _few_images(trial: Trial, context: Context, prefix: str) -> list[str]:
    examined, wanted = len(trial.positions), context.options.attack_images
    if examined >= wanted:
        return []
    return [
        f"{prefix}{examined} images are examined, not {wanted}: there are no more test images"
    ]
