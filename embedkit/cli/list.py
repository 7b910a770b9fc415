"""``embedkit list``: what there is, one line each, without importing any of it."""

import json

import click

from embedkit.encoders import PARTS
from embedkit.registry import Registry

REGISTRIES = {
    "objectives": Registry[object]("embedkit.train.objectives", "objective"),
    "augmentations": Registry[object]("embedkit.perturb.augmentations", "augmentation"),
    "presets": Registry[object]("embedkit.perturb.presets", "preset"),
    "encoders": Registry[object]("embedkit.encoders", "encoder", exclude=PARTS),
    "detectors": Registry[object]("embedkit.detect.detectors", "detector"),
    "attacks": Registry[object]("embedkit.evaluate.attacks", "attack"),
    "corruptions": Registry[object]("embedkit.evaluate.corruptions", "corruption"),
    "tasks": Registry[object]("embedkit.evaluate.tasks", "task"),
    "stores": Registry[object]("embedkit.retrieve.stores", "store"),
}


@click.command()
@click.argument("kind", required=False, type=click.Choice([*REGISTRIES]))
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object instead of a table.")
def command(kind: str | None, as_json: bool) -> None:
    """List the methods of one KIND, or of all kinds."""
    kinds = [kind] if kind else [*REGISTRIES]
    found = {
        name: {entry: REGISTRIES[name].summary(entry) for entry in REGISTRIES[name].names()}
        for name in kinds
    }
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    for name, entries in found.items():
        click.echo(f"{name}:")
        width = max([16, *map(len, entries)])
        for entry, summary in entries.items():
            click.echo(f"  {entry:<{width}} {summary}")
