"""``embedkit bench train``: the training loop beside the bare step."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from embedkit.bench.training.run import Figures

__all__ = ["train"]


@click.command(name="train", context_settings={"show_default": True})
@click.argument("recipe", type=click.Path(dir_okay=False))
@click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Replace a value of the recipe, e.g. data.source=photos.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16"]),
    multiple=True,
    default=("fp32", "bf16"),
    help="Repeat for several.",
)
@click.option("--rounds", type=click.IntRange(1), default=5, help="Bare, loop, bare, ...")
@click.option("--epochs", type=click.IntRange(2), default=2, help="Of the loop in each round.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="JSON file.")
def train(
    recipe: str,
    overrides: tuple[str, ...],
    precision: tuple[str, ...],
    rounds: int,
    epochs: int,
    device: str,
    out: Path | None,
) -> None:
    """Compare training with the bare step.

    Efficiency is images per second of the loop, with its views, checks, records and
    checkpoints, over those of forward, backward and optimiser step alone with the views in
    memory, in the same round: the two take turns. RECIPE is a TOML file.
    """
    from embedkit.bench.training.run import Plan, run
    from embedkit.train.recipe import Recipe

    plan = Plan(Recipe.load(recipe, overrides), precision, rounds, epochs, device)
    figures = run(plan, lambda text: click.echo(text, err=True))
    for name, found in figures["efficiency"].items():
        click.echo(_line(name, found, figures))
    if out is not None:
        out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def _line(precision: str, found: "Figures", figures: "Figures") -> str:
    rates = figures["images_per_s"]
    loop, bare = (rates[f"{side} {precision}"]["median"] for side in ("loop", "bare"))
    return (
        f"{precision}: {loop:.0f} of {bare:.0f} images/s, efficiency {found['median']:.3f} "
        f"(95 % {found['ci'][0]:.3f} to {found['ci'][1]:.3f}, n = {found['n']})"
    )
