"""The training loop beside the bare step and lightly's own loop, in one run.

    python -m tools.bench_train [--channels 1|3] [--rounds 7] [--images N] [--out FILE.json]

Images of noise (28 px grey or 32 px in colour; no rate depends on what they show), the
ResNet of 0.17 M parameters, SimCLR with a batch of 256 images, two views counted as one image,
AdamW. Every side takes its turn in every round, in an order drawn anew; the ratios are medians
over rounds with 95 % bootstrap intervals. lightly runs in an environment of its own, which is
made when there is none, with its SimCLR transform (no blur, as ours at this size), its loss and
its head around the same network, in several settings of which the best median counts.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from embedkit.bench.training.run import Plan, Side, our_sides, ratio, run, spread, take_turns
from embedkit.bench.training.sides import loop_rate
from embedkit.train.recipe import Recipe
from tools.peer_lightly import FOLDER, Ask, environment, lightly, version_in

_PLAIN = {"workers": 2, "channels_last": 0, "bf16": 0, "compile": 0}
_LAST = {**_PLAIN, "channels_last": 1}
_SETTINGS: dict[str, dict[str, int]] = {
    "2 workers": _PLAIN,
    "2 workers, channels-last": _LAST,
    "1 worker, channels-last": {**_LAST, "workers": 1},
    "no workers, channels-last": {**_LAST, "workers": 0},
    "2 workers, channels-last, bf16": {**_LAST, "bf16": 1},
    "2 workers, channels-last, compiled": {**_LAST, "compile": 1},
    "2 workers, channels-last, bf16, compiled": {**_LAST, "bf16": 1, "compile": 1},
}


def main() -> None:
    """Print the ratios and write everything as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--channels", type=int, choices=(1, 3), default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=5_120, help="of an epoch of ours")
    parser.add_argument("--steps", type=int, default=8, help="of lightly's loop in each turn")
    parser.add_argument("--venv", type=Path, default=FOLDER)
    parser.add_argument("--without-lightly", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-train-") as folder:
        plan = _plan(Path(folder), options)
        if options.without_lightly:
            figures = run(plan, print)
        else:
            figures = _beside_lightly(plan, Path(folder), options)
    for name, found in {**figures["efficiency"], **figures.get("over_lightly", {})}.items():
        print(f"{name}: {found['median']:.3f} (95 % {found['ci']}, n = {found['n']})")
    if options.out is not None:
        options.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def _plan(folder: Path, options: argparse.Namespace) -> Plan:
    px = 28 if options.channels == 1 else 32
    shape = (5_120, px, px, options.channels)
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.savez(folder / "noise.npz", x_train=noise[: options.images])
    np.save(folder / "noise.npy", noise)
    recipe = Recipe.from_dict(
        {
            "data": {"source": str(folder / "noise.npz")},
            "encoder": {"name": "resnet"},
            "objective": {"name": "simclr"},
            "schedule": {"batch_size": 256},
            # One line of metrics per epoch: the clock starts at the first one.
            "run": {"log_steps": max(1, options.images // 256)},
        }
    )
    return Plan(recipe, rounds=options.rounds)


def _beside_lightly(plan: Plan, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    python = environment(options.venv)
    with lightly(python, folder / "noise.npy") as ask:
        length = {"warm": 4, "steps": options.steps}
        theirs = {f"lightly, {n}": _bound(ask, {**s, **length}) for n, s in _SETTINGS.items()}
        rates = take_turns({**our_sides(plan), **_compiled(plan), **theirs}, plan.rounds, print)
    figures = run(replace(plan, rounds=1, precisions=())) | {
        "rounds": plan.rounds,
        "lightly": version_in(python),
        "images_per_s": {name: spread(values) for name, values in rates.items()},
    }
    best = max(theirs, key=lambda name: median(rates[name]))
    first = next(iter(theirs))
    ours = [name.removeprefix("loop ") for name in rates if name.startswith("loop ")]
    pairs = [(name, side) for name in ours for side in dict.fromkeys((first, best))]
    figures["efficiency"] = {
        f"{name} / bare": ratio(rates[f"loop {name}"], rates[f"bare {name.split(',')[0]}"])
        for name in ours
    }
    figures["over_lightly"] = {
        f"{name} / {side}": ratio(rates[f"loop {name}"], rates[side]) for name, side in pairs
    }
    return figures


def _compiled(plan: Plan) -> dict[str, Side]:
    """Our loop with ``run.compile``, in every precision."""

    def side(precision: str) -> Side:
        # Literal of RunSection; Plan has checked it.
        settings = replace(plan.recipe.run, precision=precision, compile=True)  # type: ignore[arg-type]
        recipe = replace(plan.recipe, run=settings)
        return lambda: loop_rate(recipe, plan.epochs, plan.device)

    return {f"loop {precision}, compiled": side(precision) for precision in plan.precisions}


def _bound(ask: Ask, turn: dict[str, int]) -> Side:
    return lambda: ask(turn)


if __name__ == "__main__":
    main()
