"""``embedkit train``: a recipe becomes a run folder."""

import json
import os
from pathlib import Path

import click

__all__ = ["command"]


@click.command(name="train")
@click.argument("recipe", type=click.Path(dir_okay=False))
@click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Replace a value of the recipe, e.g. data.source=photos or schedule.epochs=5.",
)
@click.option("--out", type=click.Path(file_okay=False), required=True, help="Run folder.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in the run folder.")
@click.option(
    "--strict",
    is_flag=True,
    help="An unreadable image is an error, not left out: data.strict=true.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to train; auto takes a GPU where there is one.",
)
def command(
    recipe: str, overrides: tuple[str, ...], out: str, resume: bool, strict: bool, device: str
) -> None:
    """Train an encoder from a recipe.

    RECIPE is a TOML file. The run folder gets the weights, the metrics and a checkpoint;
    Ctrl-C writes a checkpoint too, and --resume goes on from it.
    """
    from rich.console import Console

    from embedkit.runtime.local import load
    from embedkit.train.loop import train
    from embedkit.train.monitor.console import reporting
    from embedkit.train.recipe import Recipe

    if strict:
        overrides = (*overrides, "data.strict=true")
    settings = Recipe.load(recipe, overrides)
    if resume and not Path(out, "recipe.toml").exists():
        click.echo(f"no run in {out} to go on with: a new one begins", err=True)
    with reporting(Console(stderr=True)) as report:
        result = train(
            settings, out, resume=resume, report=report, device=device, load_bundle=load
        )
    if os.environ.get("RANK", "0") != "0":
        return  # torchrun's other processes would say the same.
    click.echo(f"encoder: {_description(result.path)}")
    click.echo(
        f"trained {settings.encoder.name} with {result.objective}: {result.steps} steps of "
        f"{settings.schedule.batch_size} images in {result.seconds:.0f} s "
        f"({result.images_per_s:.0f} images/s) -> {out}"
    )


def _description(run: Path) -> str:
    """Size and cost of a run's encoder."""
    from embedkit.encoders.description import describe
    from embedkit.encoders.encoder import build_encoder

    config = json.loads((run / "encoder.json").read_text(encoding="utf-8"))
    return str(describe(build_encoder(config)))
