"""``embedkit export``: a run, or a model trained elsewhere, becomes a bundle."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embedkit.errors import InvalidInput

if TYPE_CHECKING:
    from embedkit.bundle import Bundle
    from embedkit.data.source import Dataset
    from embedkit.export.source import Source

__all__ = ["command"]


_IMPORT_OPTIONS = ("encoder", "size", "mean", "std", "head_keys", "classes", "mapping")


@click.command(name="export")
@click.argument("run", required=False, type=click.Path(file_okay=False, path_type=Path))
@click.option("--name", required=True, help="Name of the model: lower-case, digits, '._-'.")
@click.option(
    "--models",
    default="models",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of all models.",
)
@click.option("--version", type=click.IntRange(min=1), help="By default the next free one.")
@click.option("--head", metavar="DATA", help="Labelled images to fit a classifier on.")
@click.option(
    "--detector", "detectors", metavar="NAME", multiple=True, help="OOD detector to fit."
)
@click.option("--detector-data", metavar="DATA", help="Known images for it; default: --head.")
@click.option(
    "--precision",
    default="fp32",
    show_default=True,
    metavar="fp32,fp16,int8",
    help="Graphs to write; fp32 is always there.",
)
@click.option(
    "--calibration",
    metavar="DATA",
    help="Images that choose int8's scales; default: --head, or the run's training images.",
)
@click.option("--from", "origin", metavar="torch:FILE", help="A model trained elsewhere.")
@click.option(
    "--encoder", metavar="NAME|JSON", help="With --from: resnet20, vit:tiny, or a JSON object."
)
@click.option("--input", "size", metavar="HxWxC", help="With --from: its input, e.g. 32x32x3.")
@click.option("--mean", metavar="M,...", help="With --from: subtracted per channel, in [0, 1].")
@click.option("--std", metavar="S,...", help="With --from: divisor per channel, in [0, 1].")
@click.option(
    "--head-keys", metavar="WEIGHT,BIAS", help="With --from: its classifier's tensors."
)
@click.option("--classes", metavar="NAMES|DATA", help="With --from: its class names, in order.")
@click.option("--mapping", metavar="FILE", help="With --from: JSON of its names to ours.")
@click.option("--strict", is_flag=True, help="An unreadable image is an error, not left out.")
@click.option("--licence", metavar="SPDX", help="Licence of the weights.")
def command(
    run: Path | None,
    name: str,
    models: Path,
    version: int | None,
    detectors: tuple[str, ...],
    strict: bool,
    origin: str | None,
    **options: str | None,
) -> None:
    """Write a bundle: ONNX graph, weights, parity record, golden images, model card.

    RUN is the folder that ``embedkit train`` wrote; without it, --from names weights that were
    trained elsewhere. The export fails if onnxruntime and PyTorch differ by more than 1e-5 in
    any coordinate of an embedding; in fp16 by more than 2e-3, in int8 by more than 5e-2.
    """
    if (run is None) == (origin is None):
        raise InvalidInput(
            "expected either a RUN folder or --from torch:FILE, got both or none"
        )
    stray = [key.replace("_", "-") for key in _IMPORT_OPTIONS if options[key] is not None]
    if run is not None and stray:
        raise InvalidInput(
            f"expected --{', --'.join(stray)} with --from only, got a RUN folder"
        )
    from embedkit.export.bundling import Additions, Precisions, Target, bundle_source

    wanted = Precisions(
        tuple(text.strip() for text in (options["precision"] or "").split(",")),
        _dataset(options["calibration"], strict),
    )
    additions = Additions(
        _dataset(options["head"], strict),
        detectors,
        _dataset(options["detector_data"], strict),
    )
    models.mkdir(parents=True, exist_ok=True)  # before the work, not after it
    source = _run_source(run) if run is not None else _imported(origin or "", options)
    if options["licence"] is not None:
        source = replace(source, licence=options["licence"])
    _report(bundle_source(source, Target(models, name, version), additions, wanted))


def _run_source(run: Path) -> "Source":
    from embedkit.export.run import read_run

    return read_run(run)


def _imported(origin: str, options: dict[str, str | None]) -> "Source":
    from embedkit.export.import_model import Architecture, import_torch

    kind, _, file = origin.partition(":")
    if kind != "torch" or not file:
        raise InvalidInput(f"expected --from torch:FILE, the only kind yet, got {origin!r}")
    encoder = options["encoder"]
    if encoder is None:
        raise InvalidInput("expected --encoder NAME or JSON with --from, got none")
    architecture = Architecture(
        encoder, _size(options["size"]), _floats(options, "mean"), _floats(options, "std")
    )
    keys = options["head_keys"]
    pair = None if keys is None else tuple(keys.split(","))
    if pair is not None and len(pair) != 2:
        raise InvalidInput(f"expected --head-keys WEIGHT,BIAS, got {keys!r}")
    return import_torch(
        file,
        architecture,
        head_keys=pair,
        class_names=_class_names(options["classes"]),
        mapping=options["mapping"],
    )


def _dataset(text: str | None, strict: bool = False) -> "Dataset | None":
    from embedkit.data.source import load_dataset

    return None if text is None else load_dataset(text, strict=strict)


def _class_names(text: str | None) -> tuple[str, ...] | None:
    """Names separated by commas, or those of a data set."""
    if text is None:
        return None
    if "," in text:
        return tuple(name.strip() for name in text.split(","))
    dataset = _dataset(text)
    if dataset is None or not dataset.class_names:
        raise InvalidInput(f"expected --classes as names or a labelled data set, got {text!r}")
    return dataset.class_names


def _size(text: str | None) -> tuple[int, int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})x([13])", text)
    if match is None:
        raise InvalidInput(f"expected --input HEIGHTxWIDTHx1 or x3, e.g. 32x32x3, got {text!r}")
    height, width, channels = map(int, match.groups())
    return height, width, channels


def _floats(options: dict[str, str | None], name: str) -> tuple[float, ...] | None:
    text = options[name]
    try:
        return None if text is None else tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InvalidInput(
            f"expected --{name} as numbers like 0.485,0.456,0.406, got {text!r}"
        ) from error


def _report(bundle: "Bundle") -> None:
    manifest = bundle.manifest
    parity = json.loads(bundle.read("parity.json"))
    size = sum(record.bytes for record in manifest.files.values())
    parts = [f"heads: {', '.join(bundle.names('heads')) or 'none'}"]
    parts += [f"detectors: {', '.join(bundle.names('detectors')) or 'none'}"]
    click.echo(
        f"exported {manifest.name} version {manifest.version}: dim {manifest.dim}, "
        f"{size / 1e6:.2f} MB, {'; '.join(parts)} -> {bundle.path}"
    )
    click.echo(
        f"parity with torch: {parity['max_abs_error']:.2g} (limit {parity['limit']:g}), "
        f"smallest cosine {parity['min_cosine']:.9f}"
    )
    for precision, record in parity.get("precisions", {}).items():
        _report_smaller(bundle, precision, record)
    if manifest.encoder:
        from embedkit.encoders.description import describe
        from embedkit.encoders.encoder import build_encoder

        click.echo(f"encoder: {describe(build_encoder(manifest.encoder))}")
    click.echo(f"model digest {bundle.model_digest()}")


def _report_smaller(bundle: "Bundle", precision: str, record: Mapping[str, Any]) -> None:
    """What a further graph changes, and its size beside the fp32 one."""
    from embedkit.bundle import GRAPHS

    files = bundle.manifest.files
    part = files[GRAPHS[precision]].bytes / files[GRAPHS["fp32"]].bytes
    decisions = record["decisions"]
    kept = decisions.get("neighbour_overlap")
    facts = [
        f"{record['inputs']['real']['max_abs_error']:.2g} on real images "
        f"(limit {record['limit']:g})",
        *([] if kept is None else [f"{kept:.1%} of the nearest images kept"]),
        *(
            f"{decisions[key]} of {decisions['n']} {what} changed"
            for key, what in (("knn_flips", "votes"), ("class_flips", "classes"))
            if key in decisions
        ),
        f"{part:.0%} of the size",
    ]
    click.echo(f"{precision}: {', '.join(facts)}")
    for warning in record["warnings"]:
        click.echo(f"warning: {precision}: {warning}", err=True)
