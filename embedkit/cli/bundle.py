"""``embedkit bundle``: look at a bundle, check every byte of it, or fit a detector for it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from embedkit.cli.options.number import SEED, Number

if TYPE_CHECKING:
    from embedkit.bundle import Bundle

__all__ = ["command"]


@click.group(name="bundle")
def command() -> None:
    """Show or verify a bundle, or fit a detector for it."""


@command.command(name="show")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as it is.")
def show(folder: Path, as_json: bool) -> None:
    """Print what the bundle at DIR is; its files are not read."""
    from embedkit.bundle import Bundle

    bundle = Bundle(folder, verify=False)
    if as_json:
        click.echo(bundle.manifest.to_bytes().decode(), nl=False)
        return
    for key, value in _facts(bundle).items():
        click.echo(f"{key:<15} {value}")
    click.echo()
    for name, record in sorted(bundle.manifest.files.items()):
        click.echo(f"{record.bytes:>12,} bytes  {record.sha256[:16]}  {name}")


@command.command(name="verify")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--no-run", is_flag=True, help="Compare digests only; do not embed golden images."
)
def verify(folder: Path, no_run: bool) -> None:
    """Compare every file of the bundle at DIR with its digest, and run the golden images."""
    from embedkit.bundle import Bundle

    bundle = Bundle(folder)
    size = sum(record.bytes for record in bundle.manifest.files.values())
    click.echo(f"{len(bundle.manifest.files)} files, {size:,} bytes: all as they were written")
    if no_run:
        return
    from embedkit.runtime.local import check_golden, load

    for precision in bundle.precisions:
        model = load(folder, precision=precision, verify=False)
        error = check_golden(model.session, bundle, precision)
        click.echo(f"golden embeddings in {precision}: largest difference {error:.2g}")


@command.command(name="fit", context_settings={"show_default": True})
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--detector", required=True, metavar="NAME", help="OOD detector to fit.")
@click.option("--data", required=True, metavar="DATA", help="Known images.")
@click.option(
    "--accepted",
    type=Number(0, 1, min_open=True, max_open=True),
    default=0.95,
    help="Share of known images that the threshold accepts.",
)
@click.option("--seed", type=SEED, default=0, help="Of the images that choose the threshold.")
def fit(folder: Path, detector: str, data: str, accepted: float, seed: int) -> None:
    """Write the next version of the bundle at DIR with another OOD detector.

    A fifth of the images chooses the threshold. `embedkit eval` of the new version, once it is
    served, tries both through the server's own OOD score.
    """
    from embedkit.bundle import Bundle
    from embedkit.data.source import load_dataset
    from embedkit.export.additions import replace_detector

    known = load_dataset(data)
    new, threshold = replace_detector(
        Bundle(folder), detector, known, accepted=accepted, seed=seed
    )
    click.echo(f"detector {detector} fitted on {len(known)} images of {known.name}")
    click.echo(
        f"threshold {threshold.value:.6g} [{threshold.low:.6g}, {threshold.high:.6g}], "
        f"chosen on {threshold.n} of them to accept {threshold.accepted:.0%}"
    )
    click.echo(f"bundle: {new.path}")


def _facts(bundle: "Bundle") -> dict[str, str]:
    manifest = bundle.manifest
    spec = manifest.input
    digests = {f"digest {p}": bundle.model_digest(p) for p in bundle.precisions[1:]}
    facts = {
        "name": manifest.name,
        "version": str(manifest.version),
        "precisions": ", ".join(bundle.precisions),
        "model digest": bundle.model_digest(),
        **digests,
        "input": f"{spec.height} x {spec.width} x {spec.channels} uint8",
        "embedding": f"{manifest.dim} dimensions",
        "outputs": ", ".join(manifest.outputs),
        "encoder": json.dumps({k: v for k, v in manifest.encoder.items() if k != "input"}),
        "objective": manifest.objective,
        "heads": ", ".join(bundle.names("heads")) or "none",
        "detectors": ", ".join(bundle.names("detectors")) or "none",
        "recipe": manifest.recipe_digest or "none",
        "data": manifest.data_digest or "unknown",
        "licence": manifest.licence or "not stated",
        "code": manifest.git_revision or "unknown",
        "versions": ", ".join(f"{k} {v}" for k, v in sorted(manifest.versions.items())),
    }
    return facts
