"""What a trial of robustness shows: curves, a table of stages, attacked images."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from embedkit.evaluate.measurement.figures import image_grid
from embedkit.evaluate.measurement.survival import success_by_queries
from embedkit.evaluate.measurement.trial.attacking import Attacked, Runs, Trial
from embedkit.evaluate.statistics import Metric
from embedkit.evaluate.threat import NORMS
from embedkit.types import Embeddings, Images, Labels

__all__ = ["STAGES", "attack_figures"]

STAGES = {
    "twin": "twin, float pixels",
    "twin_uint8": "twin, 8-bit pixels",
    "served": "served, pixels",
    "png": "served, PNG",
    "jpeg": "served, JPEG",
}
"""Where an attack's strength is measured, from where it was found to where it is used."""

_UNITS = {
    "linf": "radius in grey levels of 255",
    "l2": "L2 radius in grey levels of 255",
    "patch": "side of the patch in pixels",
}


def attack_figures(
    trial: Trial,
    runs: Mapping[str, Runs],
    noise: Runs,
    names: tuple[str, ...],
    rows: int,
    queries: int,
) -> dict[str, dict[str, object]]:
    """Return plot data: accuracy by radius, by stage, success by queries, attacked images.

    Args:
        trial: What was attacked.
        runs: Per attack, its results.
        noise: Those of random noise.
        names: Name of each class.
        rows: Images shown in the grid.
        queries: Limit of the attacks by queries.
    """
    figures: dict[str, dict[str, object]] = {}
    for norm in NORMS:
        if any(run.threat.norm == norm for run in noise.values()):
            title = "accuracy" if norm == "linf" else f"accuracy_{norm}"
            figures[title] = _accuracy_curve(trial, {**runs, "random noise": noise}, norm)
    figures |= _stage_tables(trial, runs)
    asking = [
        (f"{attack}, {_in_words(run)}", run.outcome.queries_needed, run.outcome.success)
        for attack, outcomes in runs.items()
        for run in outcomes.values()
        if run.outcome.queries.any()
    ]
    if asking:
        figures["queries"] = success_by_queries(asking, queries)
    if runs:
        shown = next(iter(runs.values()))
        figures["attacked"] = _attacked_images(trial, shown, names, rows)
    return figures


def _in_words(run: Attacked) -> str:
    kind = {"linf": "radius", "l2": "L2 radius", "patch": "patch"}[run.threat.norm]
    return f"{kind} {run.threat.size:g}"


def _accuracy_curve(trial: Trial, runs: Mapping[str, Runs], norm: str) -> dict[str, object]:
    clean = trial.accuracy(np.zeros(len(trial.clean), bool))
    series, sizes = {}, [0.0]
    for name, outcomes in runs.items():
        own = [run for run in outcomes.values() if run.threat.norm == norm]
        if not own:
            continue
        sizes = [0.0, *(run.threat.size for run in own)]
        series[name] = _line([clean, *(trial.accuracy(r.outcome.success) for r in own)])
    return {
        "kind": "curve",
        "title": f"Accuracy under attack ({norm})",
        "x": sizes,
        "series": series,
        "xlabel": _UNITS[norm],
        "ylabel": "accuracy",
    }


def _line(points: Sequence[Metric]) -> dict[str, list[float]]:
    bounds = [point.ci or (point.value, point.value) for point in points]
    return {
        "y": [point.value for point in points],
        "lo": [low for low, _ in bounds],
        "hi": [high for _, high in bounds],
    }


def _stage_tables(trial: Trial, runs: Mapping[str, Runs]) -> dict[str, dict[str, object]]:
    """Accuracy at each stage, a row per attack and threat: where the strength is lost."""
    rows = []
    for attack, outcomes in runs.items():
        for run in outcomes.values():
            stages = {**run.stages, "served": run.outcome.success}
            shares = [
                f"{trial.accuracy(stages[name]).value:.3f}" if name in stages else ""
                for name in STAGES
            ]
            rows.append([f"{attack}, {_in_words(run)}", *shares])
    if not any(run.stages for outcomes in runs.values() for run in outcomes.values()):
        return {}
    return {
        "stages": {
            "kind": "table",
            "title": "Accuracy under attack, from the twin to the server",
            "columns": ["attack", *STAGES.values()],
            "rows": rows,
        }
    }


def _attacked_images(
    trial: Trial, runs: Runs, names: tuple[str, ...], rows: int
) -> dict[str, object]:
    """Originals beside what the attack made of them, the most easily fooled first."""
    by_threat = np.stack([run.outcome.success for run in runs.values()])
    first = np.where(by_threat.any(axis=0), by_threat.argmax(axis=0), len(by_threat))
    chosen = np.argsort(first, kind="stable")[:rows]
    largest = list(runs.values())[-1].outcome
    decide: Callable[[Embeddings], Labels] | None = getattr(trial.head, "decide", None)
    grid: list[tuple[str, Images]] = []
    for index in chosen:
        verdict = "fooled" if largest.success[index] else "withstood"
        if trial.labels is not None and decide is not None:
            read_as = int(decide(largest.embeddings[index : index + 1])[0])
            if largest.success[index]:
                verdict = f"read as {names[read_as]}"
            verdict = f"{names[int(trial.labels[index])]}: {verdict}"
        attacked = [run.outcome.adversarial[index] for run in runs.values()]
        grid.append((verdict, np.stack([trial.target.images[index], *attacked])))
    threats = ", ".join(_in_words(run) for run in runs.values())
    return image_grid(grid, f"Original, then attacked: {threats}")
