"""Can the model's confidence be taken at its word?"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.errors import NotFound
from embedkit.evaluate.context import CHUNK, Context
from embedkit.evaluate.measurement.checks import class_problem, head_leakage, leakage
from embedkit.evaluate.measurement.means import mean_metric, recentred
from embedkit.evaluate.measurement.rows import probe_rows
from embedkit.evaluate.statistics import (
    FEW,
    CiMethod,
    Metric,
    Metrics,
    content_seed,
    jackknife_metric,
    random_groups,
    resample_counts,
)
from embedkit.evaluate.task import Figure, TaskResult, skipped, tasks
from embedkit.measures.calibration import (
    brier,
    calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability,
    scaled,
)
from embedkit.measures.without import measure_without
from embedkit.perturb.randomness import Keys, keys_of
from embedkit.runtime.probe import fit_probe
from embedkit.types import Labels, Scorer

__all__ = ["Calibration"]

_RESAMPLES = 200
_LEAST = 1e-12

Shares = npt.NDArray[np.float64]


@tasks.register("calibration")
@dataclass(frozen=True)
class Calibration:
    """How far confidence and accuracy lie apart, as served and after a temperature.

    ``served`` is the bundle's own head through the served CLASS, where the model has one with
    the test set's classes; ``linear`` is a probe on the served embeddings. The temperature is
    fitted on one half of the test images and applied to the other, both ways: nothing is scored
    on images that it was fitted on.

    Metrics: ``<source>.ece`` (15 equal bins), ``.ece_equal_mass``, ``.brier``, ``.nll``,
    ``.temperature``, and the first four after scaling as ``<source>.scaled.<metric>``.
    Items: ``labels``, ``<source>.probabilities``, ``<source>.scaled``.
    """

    def metric_names(self, context: Context) -> tuple[str, ...]:
        """Every metric that it may give here."""
        kinds = ("ece", "ece_equal_mass", "brier", "nll")
        return tuple(
            f"{source}.{kind}"
            for source in ("served", "linear")
            for kind in (*kinds, "temperature", *(f"scaled.{kind}" for kind in kinds))
        )

    def run(self, context: Context) -> TaskResult:
        """Measure every source of probabilities that is there."""
        problem = class_problem(context)
        if problem:
            return skipped("calibration", problem)
        labels = np.asarray(context.test.labels)
        warnings = [*leakage(context), *head_leakage(context)]
        sources = {"linear": _linear(context)}
        try:
            sources = {"served": _served(context), **sources}
        except NotFound as error:
            warnings.append(f"no served: {error}")
        keys = keys_of(context.test.ids, context.seed)
        halves = np.argsort(np.argsort(keys, kind="stable")) < len(labels) // 2
        metrics: Metrics = {}
        items: dict[str, npt.NDArray[np.generic]] = {"labels": labels}
        figures: dict[str, Figure] = {}
        for source, shares in sources.items():
            after, temperature = _cross_scaled(shares, labels, halves)
            metrics |= _metrics(f"{source}.", shares, labels)
            metrics[f"{source}.temperature"] = jackknife_metric(
                temperature, _temperatures(shares, labels, halves, keys), len(labels), least=0.0
            )
            metrics |= _metrics(f"{source}.scaled.", after, labels)
            items |= {f"{source}.probabilities": shares, f"{source}.scaled": after}
            figures[source] = _diagram(source, {"as it is": shares, "scaled": after}, labels)
        return TaskResult(
            "calibration",
            metrics,
            cost={"images": len(context.train) + len(context.test)},
            warnings=tuple(warnings),
            items=items,
            figures=figures,
        )


def _linear(context: Context) -> Shares:
    """Probabilities of a probe on the served embeddings, (n, c)."""
    rows = probe_rows(context)
    probe = fit_probe(
        context.embeddings("served", context.train)[rows],
        np.asarray(context.train.labels)[rows],
        class_names=context.train.class_names,
        seed=context.seed,
    )
    logits = probe.head.logits(context.embeddings("served", context.test))
    return scaled(logits.astype(np.float64), 1.0)


def _served(context: Context) -> Shares:
    """Probabilities of the bundle's head in the order of the test set's classes, (n, c)."""
    served, names = context.served, context.test.class_names
    if not isinstance(served, Scorer):
        raise NotFound("expected a model that answers with classes, got an embedder alone")
    images = context.test.images
    found = [served.score(images[i : i + CHUNK]) for i in range(0, len(images), CHUNK)]
    parts = [part.probabilities for part in found if part.probabilities is not None]
    if len(parts) < len(found):
        raise NotFound("expected a model with a head, got one without")
    head = found[0].class_names or names
    if set(head) != set(names):
        raise NotFound(f"expected a head for the classes {list(names)}, got {list(head)}")
    order = [head.index(name) for name in names]
    shares = np.concatenate(parts).astype(np.float64)[:, order]
    # float32 sums to 1 up to 1e-7, and a saturated softmax may pass it.
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def _cross_scaled(
    shares: Shares, labels: Labels, half: npt.NDArray[np.bool_]
) -> tuple[Shares, float]:
    """Probabilities scaled by the temperature of the other half, and the mean temperature."""
    logits = np.log(np.maximum(shares, _LEAST))
    after = shares.copy()
    temperatures = []
    for fitted, applied in ((half, ~half), (~half, half)):
        temperatures.append(fit_temperature(logits[fitted], labels[fitted]))
        after[applied] = scaled(logits[applied], temperatures[-1])
    return after, float(np.mean(temperatures))


def _temperatures(
    shares: Shares, labels: Labels, half: npt.NDArray[np.bool_], keys: Keys
) -> npt.NDArray[np.float64] | None:
    """The mean temperature without each twentieth of the images."""
    if len(labels) < 2 * FEW:
        return None
    return measure_without(
        lambda rows: _cross_scaled(shares[rows], labels[rows], half[rows])[1],
        random_groups(keys),
    )


def _metrics(prefix: str, shares: Shares, labels: Labels) -> Metrics:
    metrics: Metrics = {}
    confidence, correct = shares.max(axis=1), shares.argmax(axis=1) == labels
    n = len(labels)
    for name, width in (("ece", "equal"), ("ece_equal_mass", "mass")):
        value = calibration_error(confidence, correct, width=width)  # type: ignore[arg-type]
        ci = None
        if n >= FEW:
            rng = np.random.default_rng(content_seed(prefix + name, n, confidence))
            drawn = np.empty(_RESAMPLES)
            for index in range(_RESAMPLES):
                rows = np.repeat(np.arange(n), resample_counts(n, rng))
                drawn[index] = calibration_error(confidence[rows], correct[rows], width=width)  # type: ignore[arg-type]
            ci = recentred(value, drawn)
        method: CiMethod = "bootstrap_recentred" if ci else ""
        metrics[prefix + name] = Metric(value, ci, n, higher_is_better=False, ci_method=method)
    for name, values, unit, most in (
        ("brier", brier(shares, labels), "", 2.0),
        ("nll", negative_log_likelihood(shares, labels), "nats", np.inf),
    ):
        metrics[prefix + name] = mean_metric(
            values, unit=unit, higher_is_better=False, least=0, most=most
        )
    return metrics


def _diagram(source: str, shares: dict[str, Shares], labels: Labels) -> Figure:
    """Accuracy over confidence, in equal bins; the diagonal is what it should be."""
    return {
        "kind": "reliability",
        "title": f"Reliability of {source} probabilities",
        "series": {
            name: dict(
                zip(
                    ("confidence", "accuracy", "count"),
                    (
                        values.tolist()
                        for values in reliability(s.max(axis=1), s.argmax(axis=1) == labels)
                    ),
                    strict=True,
                )
            )
            for name, s in shares.items()
        },
    }
