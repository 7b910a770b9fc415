"""What a trial of robustness shows: its plots, and the signs that an attack was too weak."""

from collections.abc import Mapping

import numpy as np

from embedkit.evaluate.measurement.figures import image_grid
from embedkit.evaluate.measurement.survival import success_by_queries
from embedkit.evaluate.measurement.trial import Attacked, Trial
from embedkit.types import Images

__all__ = ["Runs", "attack_figures", "weaknesses"]

Runs = Mapping[float, Attacked]
"""What one attack did at each radius, ascending."""

_LABELS = {"pgd": "PGD (white box)", "square": "Square (black box)", "noise": "random noise"}
_LOST_IN_TRANSFER = 0.1
# Two searches of equal strength differ by a few images.
_SEARCH_LUCK = 0.03


def attack_figures(
    trial: Trial, runs: Mapping[str, Runs], noise: Runs, names: tuple[str, ...], rows: int
) -> dict[str, dict[str, object]]:
    """Return plot data: accuracy by radius, success by queries, attacked images.

    Args:
        trial: What was attacked.
        runs: Per attack, its results; ``square`` and, with a twin, ``pgd``.
        noise: Those of random noise.
        names: Name of each class.
        rows: Images shown in the grid.
    """
    square = [
        (f"radius {radius:g}", run.outcome.queries, run.outcome.success)
        for radius, run in runs["square"].items()
    ]
    limit = max(int(queries.max()) for _, queries, _ in square)
    return {
        "accuracy": _accuracy_curve(trial, {**runs, "noise": noise}),
        "queries": success_by_queries(square, limit),
        "attacked": _attacked_images(trial, runs.get("pgd", runs["square"]), names, rows),
    }


def weaknesses(trial: Trial, runs: Mapping[str, Runs], noise: Runs) -> list[str]:
    """Return a sentence for each sign that an attack was weaker than it should be."""
    found = [
        *_masked_gradients(runs),
        *_white_below_black(runs),
        *_lost_in_transfer(trial, runs),
    ]
    for name, outcomes in {**runs, "noise": noise}.items():
        found += _weaker_with_more(name, outcomes)
        found += [
            f"{_LABELS[name]} left the ball of radius {radius:g}: its results do not count"
            for radius, run in outcomes.items()
            if run.outcome.distances.max() > radius
        ]
    for name, outcomes in runs.items():
        found += [
            f"{_LABELS[name]} fooled fewer images than random noise at radius {radius:g}"
            for radius, run in outcomes.items()
            if run.outcome.success.sum() < noise[radius].outcome.success.sum()
        ]
    return found


def _masked_gradients(runs: Mapping[str, Runs]) -> list[str]:
    """White-box attacks on images without a gradient say nothing."""
    flat = [
        int(np.count_nonzero(run.outcome.gradient_norms == 0))
        for run in runs.get("pgd", {}).values()
        if run.outcome.gradient_norms is not None
    ]
    if not flat or not max(flat):
        return []
    return [
        f"the gradient was zero for {max(flat)} attacked images: white-box results overstate "
        "their robustness"
    ]


def _white_below_black(runs: Mapping[str, Runs]) -> list[str]:
    """An attack with gradients that finds less than one without them is not to be trusted."""
    weaker = [
        f"{radius:g}"
        for radius, run in runs.get("pgd", {}).items()
        if run.outcome.success.mean() + _SEARCH_LUCK
        < runs["square"][radius].outcome.success.mean()
    ]
    if not weaker:
        return []
    return [
        f"the white-box attack fooled fewer images than the black-box one at radius "
        f"{', '.join(weaker)}: use more PGD steps, or suspect masked gradients"
    ]


def _lost_in_transfer(trial: Trial, runs: Mapping[str, Runs]) -> list[str]:
    """Where rounding or another runtime undoes an attack, the twin is not the served model."""
    lost = []
    for radius, run in runs.get("pgd", {}).items():
        if run.twin_success is None:
            continue
        share = float(run.twin_success.mean() - run.outcome.success.mean())
        if share > _LOST_IN_TRANSFER:
            lost.append(
                f"at radius {radius:g} the white-box attack fooled {share:.0%} more of the "
                "images on the twin than on the served model: rounding to 8 bits or a "
                "difference between the two took its strength"
            )
    return lost


def _weaker_with_more(name: str, outcomes: Runs) -> list[str]:
    radii = list(outcomes)
    counts = [int(run.outcome.success.sum()) for run in outcomes.values()]
    return [
        f"{_LABELS[name]} fooled fewer images at radius {larger:g} than at {smaller:g}, "
        f"{after} and {before}: the search is too short"
        for smaller, larger, before, after in zip(
            radii[:-1], radii[1:], counts[:-1], counts[1:], strict=True
        )
        if after < before and name != "noise"
    ]


def _accuracy_curve(trial: Trial, runs: Mapping[str, Runs]) -> dict[str, object]:
    clean = trial.accuracy(np.zeros(len(trial.clean), bool))
    series = {}
    for name, outcomes in runs.items():
        points = [clean, *(trial.accuracy(run.outcome.success) for run in outcomes.values())]
        bounds = [point.ci or (point.value, point.value) for point in points]
        series[_LABELS[name]] = {
            "y": [point.value for point in points],
            "lo": [low for low, _ in bounds],
            "hi": [high for _, high in bounds],
        }
    radii = next(iter(runs.values()))
    return {
        "kind": "curve",
        "title": "Accuracy under attack",
        "x": [0.0, *radii],
        "series": series,
        "xlabel": "radius in grey levels of 255",
        "ylabel": "accuracy",
    }


def _attacked_images(
    trial: Trial, runs: Runs, names: tuple[str, ...], rows: int
) -> dict[str, object]:
    """Originals beside what the attack made of them, the most easily fooled first."""
    by_radius = np.stack([run.outcome.success for run in runs.values()])
    first = np.where(by_radius.any(axis=0), by_radius.argmax(axis=0), len(by_radius))
    chosen = np.argsort(first, kind="stable")[:rows]
    largest = list(runs.values())[-1].outcome
    read_as = trial.head.decide(largest.embeddings)
    grid: list[tuple[str, Images]] = []
    for index in chosen:
        label, other = int(trial.head.labels[index]), int(read_as[index])
        verdict = "withstood" if label == other else f"read as {names[other]}"
        attacked = [run.outcome.adversarial[index] for run in runs.values()]
        images = np.stack([trial.target.images[index], *attacked])
        grid.append((f"{names[label]}: {verdict}", images))
    radii = ", ".join(f"{radius:g}" for radius in runs)
    return image_grid(grid, f"Original, then attacked at radius {radii}")
