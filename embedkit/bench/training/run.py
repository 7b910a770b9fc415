"""The comparison: rounds in which every side takes its turn, and what comes of them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch

from embedkit.bench.training.sides import BareStep, loop_rate
from embedkit.errors import InvalidInput
from embedkit.runtime.environment import code_digest, machine, package_versions
from embedkit.train.recipe import Recipe

__all__ = [
    "SCHEMA",
    "Figures",
    "Plan",
    "Side",
    "our_sides",
    "ratio",
    "run",
    "spread",
    "take_turns",
]

SCHEMA = "embedkit.bench.train/1"
_PACKAGES = ("embedkit", "torch", "numpy")
_DRAWS = 2000

Side = Callable[[], float]
"""Takes one turn and returns images per second."""

Figures = dict[str, Any]
"""What goes into the JSON file: numbers, names, and tables of them."""


@dataclass(frozen=True)
class Plan:
    """What to measure, and how often.

    Attributes:
        recipe: What is trained.
        precisions: ``fp32``, ``bf16`` or both.
        rounds: Turns of every side.
        epochs: Of our loop in each turn, at least 2.
        device: ``cpu`` or ``cuda``.
    """

    recipe: Recipe
    precisions: tuple[str, ...] = ("fp32", "bf16")
    rounds: int = 5
    epochs: int = 2
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.rounds < 1 or self.epochs < 2 or not set(self.precisions) <= {"fp32", "bf16"}:
            raise InvalidInput(
                "expected at least 1 round of at least 2 epochs in fp32 or bf16, got "
                f"{self.rounds}, {self.epochs} and {', '.join(self.precisions)}"
            )


def run(plan: Plan, report: Callable[[str], None] | None = None) -> Figures:
    """Measure our loop beside the bare step, in every precision, in one run.

    Args:
        plan: What and how often.
        report: Told how far it is.

    Returns:
        ``images_per_s`` of every side and, per precision, ``efficiency``: the loop's rate over
        the bare step's of the same round.
    """
    rates = take_turns(our_sides(plan), plan.rounds, report)
    return {
        "schema": SCHEMA,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "code": code_digest(),
        "versions": package_versions(_PACKAGES),
        "machine": machine(),
        "device": plan.device,
        "threads": torch.get_num_threads(),
        "recipe": plan.recipe.to_dict(),
        "rounds": plan.rounds,
        "images_per_s": {name: spread(values) for name, values in rates.items()},
        "efficiency": {
            precision: ratio(rates[f"loop {precision}"], rates[f"bare {precision}"])
            for precision in plan.precisions
        },
    }


def our_sides(plan: Plan) -> dict[str, Side]:
    """``loop`` and ``bare`` in every precision, ready to take turns."""
    sides: dict[str, Side] = {}
    for precision in plan.precisions:
        # Literal of RunSection; Plan has checked it.
        settings = replace(plan.recipe.run, precision=precision)  # type: ignore[arg-type]
        recipe = replace(plan.recipe, run=settings)
        bare = BareStep(recipe, torch.device(plan.device))
        steps = len(bare.supply.images) // recipe.schedule.batch_size
        sides[f"bare {precision}"] = _bound(bare.rate, steps)
        sides[f"loop {precision}"] = _loop(recipe, plan)
    return sides


def take_turns(
    sides: Mapping[str, Side], rounds: int, report: Callable[[str], None] | None = None
) -> dict[str, list[float]]:
    """Images per second of every side in every round; the order is drawn anew each time."""
    order = np.random.default_rng(0)
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in order.permutation(list(sides)):
            rates[name].append(sides[name]())
            if report is not None:
                report(f"round {number + 1}: {name}, {rates[name][-1]:.0f} images/s")
    return rates


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Figures:
    """Median over rounds of the ratio within a round, with a 95 % bootstrap interval.

    Example:
        >>> ratio([2.0, 3.0, 4.0], [1.0, 1.0, 1.0])["median"]
        3.0
    """
    ratios = np.asarray(ours) / np.asarray(theirs)
    draws = np.random.default_rng(0).integers(len(ratios), size=(_DRAWS, len(ratios)))
    low, high = np.quantile(np.median(ratios[draws], axis=1), [0.025, 0.975])
    return {**spread(ratios.tolist()), "ci": [round(float(low), 4), round(float(high), 4)]}


def spread(values: Sequence[float]) -> Figures:
    """Median, least and greatest, and the value of each round."""
    figures = {"median": float(np.median(values)), "min": min(values), "max": max(values)}
    digits = {key: _rounded(value) for key, value in figures.items()}
    return {**digits, "n": len(values), "rounds": [_rounded(v) for v in values]}


def _rounded(value: float) -> float:
    """Four figures, whatever the size."""
    return round(value, 3 - math.floor(math.log10(value))) if value > 0 else value


def _bound(rate: Callable[[int], float], steps: int) -> Side:
    return lambda: rate(steps)


def _loop(recipe: Recipe, plan: Plan) -> Side:
    return lambda: loop_rate(recipe, plan.epochs, plan.device)
