"""What a trial of attacks comes to: metrics, costs, and the items they are made of."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from embedkit.evaluate.attack import attacks
from embedkit.evaluate.context import Context
from embedkit.evaluate.measurement.survival import censored_median
from embedkit.evaluate.measurement.trial.attacking import Attacked, Runs, Trial, mean_shift
from embedkit.evaluate.measurement.trial.running import Everything, needs_gradient
from embedkit.evaluate.statistics import Metrics

__all__ = [
    "censored_medians",
    "kinds_of",
    "noise_metrics",
    "trial_cost",
    "trial_items",
    "trial_metrics",
]

_STAGES = {
    "twin": "twin_accuracy",
    "twin_uint8": "twin_uint8_accuracy",
    "png": "png_accuracy",
    "jpeg": "jpeg_accuracy",
}


def kinds_of(attack: str) -> tuple[str, ...]:
    """Return what is reported of an attack."""
    own = ["twin_accuracy", "twin_uint8_accuracy"] if needs_gradient(attack) else []
    if attacks.get(attack).needs & {"scores", "decisions"}:
        own.append("median_queries")
    return ("accuracy", "cosine_shift", "png_accuracy", "jpeg_accuracy", *own)


def trial_metrics(trial: Trial, runs: Mapping[str, Runs], context: Context) -> Metrics:
    """Return accuracies of each attack and threat, and the worst case over the attacks."""
    metrics: Metrics = {"accuracy": trial.accuracy(np.zeros(len(trial.clean), bool))}
    for name, outcomes in runs.items():
        for threat, run in outcomes.items():
            prefix = f"{name}.{threat}"
            metrics[f"{prefix}.accuracy"] = trial.accuracy(run.outcome.success)
            for stage, success in run.stages.items():
                metrics[f"{prefix}.{_STAGES[stage]}"] = trial.accuracy(success)
            if "median_queries" in kinds_of(name):
                metrics[f"{prefix}.median_queries"] = censored_median(
                    run.outcome.queries_needed,
                    run.outcome.success,
                    context.options.square_queries,
                )
            metrics[f"{prefix}.cosine_shift"] = mean_shift(run.shift)
    if len(runs) > 1:
        for threat in dict.fromkeys(t for outcomes in runs.values() for t in outcomes):
            each = [o[threat].outcome.success for o in runs.values() if threat in o]
            metrics[f"worst.{threat}.accuracy"] = trial.accuracy(np.any(each, axis=0))
    return metrics


def noise_metrics(trial: Trial, everything: Everything) -> Metrics:
    """Return what noise does under each attack's name, so that both stand side by side."""
    metrics: Metrics = {}
    for name, outcomes in everything.runs.items():
        for threat in outcomes:
            run = everything.noise[threat]
            metrics[f"{name}.{threat}.accuracy"] = trial.accuracy(run.outcome.success)
            metrics[f"{name}.{threat}.cosine_shift"] = mean_shift(run.shift)
    return metrics


def censored_medians(runs: Mapping[str, Runs], prefix: str) -> list[str]:
    """Return a warning for each attack whose median of queries is only a lower bound."""
    found = []
    for name, outcomes in runs.items():
        if "median_queries" not in kinds_of(name):
            continue
        threats = [key for key, run in outcomes.items() if run.outcome.success.mean() < 0.5]
        if threats:
            found.append(
                f"{prefix}{name}.median_queries is a lower bound at radius "
                f"{', '.join(threats)}: fewer than half of the images were fooled within the "
                "limit"
            )
    return found


def trial_cost(trial: Trial, everything: Everything) -> dict[str, float]:
    """Return images and calls of the served model; the attacks' own queries apart.

    What the checks ask is part of it: the clean images once more, and runs of their own.
    """
    extra = everything.extra
    attacked: list[Attacked] = [*everything.noise.values(), *extra.runs]
    attacked += [run for runs in everything.runs.values() for run in runs.values()]
    outcomes = [run.outcome for run in attacked]
    asked = len(trial.positions) + (0 if extra.flips is None else len(trial.clean))
    return {
        "images": asked + sum(run.verified for run in attacked),
        "queries": sum(outcome.usage.images for outcome in outcomes),
        "query_calls": sum(outcome.usage.calls for outcome in outcomes),
        "query_bytes": sum(outcome.usage.bytes_sent for outcome in outcomes),
        "query_retries": sum(outcome.usage.retries for outcome in outcomes),
        "query_cache_hits": sum(outcome.usage.cache_hits for outcome in outcomes),
    }


def trial_items(trial: Trial, runs: Mapping[str, Runs]) -> dict[str, npt.NDArray[np.generic]]:
    """Return what the metrics are made of, image by image."""
    items: dict[str, npt.NDArray[np.generic]] = {
        "index": trial.positions,
        "handled": trial.handled,
    }
    if trial.labels is not None:
        items["labels"] = trial.labels
    for name, outcomes in runs.items():
        for threat, run in outcomes.items():
            prefix = f"{name}.{threat}"
            items[f"{prefix}.success"] = run.outcome.success
            items[f"{prefix}.cosine_shift"] = run.shift
            for stage, success in run.stages.items():
                items[f"{prefix}.{stage}_success"] = success
            if "median_queries" in kinds_of(name):
                items[f"{prefix}.queries"] = run.outcome.queries
                items[f"{prefix}.queries_needed"] = run.outcome.queries_needed
                if run.outcome.nearest is not None:
                    items[f"{prefix}.nearest"] = run.outcome.nearest
    return items
