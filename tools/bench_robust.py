"""Does robust training help? Pairs of recipes that differ in nothing else, served and attacked.

    python tools/bench_robust.py [--data digits] [--epochs 30] [--seeds 3] [--out FILE]

Every recipe is trained with each seed, exported, served and given to the robustness task: PGD
on the torch twin, rounded to 8 bits and replayed through gRPC against the kNN decision. For
each radius the table has the mean accuracy over the seeds, and the difference to the recipe
without robust training, paired by seed, with a 95 % t interval. Clean accuracy stands beside.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import embedkit
from embedkit.data.source import load_dataset
from embedkit.evaluate.context import Context, Options
from embedkit.evaluate.run import evaluate
from embedkit.evaluate.statistics import over_seeds
from embedkit.export.run import export_run
from embedkit.serve.server import running_server
from embedkit.train.loop import train
from embedkit.train.recipe import Recipe

Sections = Mapping[str, Mapping[str, object]]

_MILD = [
    {"name": "geometric", "area": [0.5, 1.0], "flip": 0.0, "rotate_deg": 15.0},
    {"name": "colour", "brightness": 0.4, "contrast": 0.4},
]


@dataclass(frozen=True)
class Variant:
    """A recipe and the one that it is compared with."""

    name: str
    plain: str
    sections: Sections


def variants(radius_255: float) -> list[Variant]:
    """The two plain recipes first, then all that should be more robust."""
    near = {"radius_255": radius_255}
    euclidean = {"radius_255": 10 * radius_255}
    views = {"adversarial_255": radius_255}
    return [
        Variant("simclr", "simclr", {"objective": {"name": "simclr"}}),
        Variant("cross_entropy", "cross_entropy", {"objective": {"name": "cross_entropy"}}),
        Variant(
            "simclr, adversarial view",
            "simclr",
            {"objective": {"name": "simclr"}, "views": views},
        ),
        Variant(
            "adversarial_contrastive",
            "simclr",
            {"objective": {"name": "adversarial_contrastive", "temperature": 0.2, **near}},
        ),
        Variant(
            "cross_entropy, adversarial view",
            "cross_entropy",
            {"objective": {"name": "cross_entropy"}, "views": views},
        ),
        Variant("trades", "cross_entropy", {"objective": {"name": "trades", **near}}),
        Variant(
            "trades, predictions",
            "cross_entropy",
            {"objective": {"name": "trades", "between": "predictions", **near}},
        ),
        Variant("vat", "cross_entropy", {"objective": {"name": "vat", **euclidean}}),
    ]


def main() -> None:
    """Train and attack everything; print the table and the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", default="digits", help="a DATA string with train and test")
    parser.add_argument(
        "--limit",
        type=int,
        default=0,
        help="training images, and images of the bank; 0 takes all",
    )
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--width", type=int, default=16, help="channels of the first stage")
    parser.add_argument("--stem", default="small", help="of the ResNet: small or half")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train-radius", type=float, default=16.0, help="in steps of 1/255")
    parser.add_argument("--radius", type=float, action="append", help="attacked, repeatable")
    parser.add_argument("--attacked", type=int, default=200, help="test images examined")
    parser.add_argument("--only", action="append", help="name of a variant, repeatable")
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    options = parser.parse_args()
    options.radius = options.radius or [8.0, 16.0]
    chosen = variants(options.train_radius)
    if options.only:
        chosen = [v for v in chosen if v.name in options.only]
    measured: dict[str, list[dict[str, float]]] = {v.name: [] for v in chosen}
    for seed in range(options.seeds):
        for variant in chosen:
            found = measure(variant, seed, options)
            measured[variant.name].append(found)
            print(json.dumps({"variant": variant.name, "seed": seed, **found}), flush=True)
    rows = [_row(v, measured) for v in chosen]
    print(_table(rows))
    settings = {k: v for k, v in vars(options).items() if k != "out"}
    result = {"settings": settings, "torch": torch.__version__, "rows": rows, "runs": measured}
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def _recipe(variant: Variant, seed: int, options: argparse.Namespace) -> Recipe:
    table: dict[str, object] = {
        "seed": seed,
        "data": {"source": options.data, "limit": options.limit},
        "encoder": {
            "name": "resnet",
            "blocks": [1, 1, 1],
            "width": options.width,
            "stem": options.stem,
        },
        "augmentation": _MILD,
        "projection": {"hidden": 128, "dim": 64},
        "optimiser": {"lr": 3e-3},
        "schedule": {"epochs": options.epochs, "batch_size": 128},
    }
    return Recipe.from_dict(table | dict(variant.sections))


def measure(variant: Variant, seed: int, options: argparse.Namespace) -> dict[str, float]:
    """Accuracies of one served model, and the seconds that its training took."""
    with tempfile.TemporaryDirectory(prefix="embedkit-robust-") as name:
        folder = Path(name)
        done = train(_recipe(variant, seed, options), folder / "run", device="cpu")
        bundle = export_run(folder / "run", name="robust", models=folder / "models")
        data, test = load_dataset(options.data), load_dataset(f"{options.data}:test")
        if options.limit:
            data = data.subset(np.arange(options.limit))
        settings = Options(
            attack_images=options.attacked,
            pgd_steps=20,
            square_queries=20,
            radii_255=tuple(options.radius),
        )
        with (
            running_server(models=folder / "models", data_dir=folder / "var") as address,
            embedkit.connect(address) as client,
        ):
            model = client.model("robust")
            context = Context(model, data, test, {}, bundle=bundle, options=settings)
            (result,) = evaluate(context, ("robustness",)).results
    # The last part of a name is the figure, the two before it are the attack and its radius.
    figures = {"clean": result.metrics["accuracy"].value}
    for radius in options.radius:
        wanted = f"pgd.{radius:g}.accuracy"
        values = [m.value for k, m in result.metrics.items() if k.endswith(wanted)]
        figures[f"pgd.{radius:g}"] = min(values)
    return {**figures, "seconds": done.seconds}


def _row(variant: Variant, measured: Mapping[str, list[dict[str, float]]]) -> dict[str, object]:
    runs, plain = measured[variant.name], measured.get(variant.plain)
    row: dict[str, object] = {"variant": variant.name, "seeds": len(runs)}
    for figure in runs[0]:
        values = [run[figure] for run in runs]
        row[figure] = round(sum(values) / len(values), 4)
        if plain is not None and variant.name != variant.plain and figure != "seconds":
            gains = [a - b[figure] for a, b in zip(values, plain, strict=True)]
            row[f"{figure} gain"] = _interval(gains)
    return row


def _interval(values: list[float]) -> list[float]:
    """Mean and the ends of its 95 % t interval."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return [round(mean, 4)]
    found = over_seeds(values, [None] * len(values)).ci_seeds
    return [round(x, 4) for x in (mean, *found)]


def _table(rows: list[dict[str, object]]) -> str:
    lines = []
    for row in rows:
        parts = [f"{k} {v}" for k, v in row.items() if k != "variant"]
        lines.append(f"{row['variant']:<32} " + "  ".join(parts))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
