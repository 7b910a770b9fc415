"""A training run's folder as the source of an export."""

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load

from embedkit.bundle import Bundle, Head, unpack_arrays
from embedkit.data.dataset import Dataset
from embedkit.encoders.encoder import build_encoder
from embedkit.errors import BundleDamaged, InvalidInput, NotFound
from embedkit.export.bundling import Additions, Precisions, Target, bundle_source
from embedkit.export.source import Source

__all__ = ["export_run", "read_run"]


def export_run(
    run: str | Path,
    *,
    name: str,
    models: str | Path,
    version: int | None = None,
    head: Dataset | None = None,
    detectors: Sequence[str] = (),
    detector_data: Dataset | None = None,
    precisions: Precisions = Precisions(),  # noqa: B008  (frozen)
) -> Bundle:
    """Write a bundle from a training run.

    Args:
        run: The folder that ``embedkit train`` wrote.
        name: Name of the model.
        models: The folder that holds all models.
        version: By default the next free one.
        head: Labelled images on which to fit a classifier; without them the bundle has the
            run's own classifier, if it trained one.
        detectors: Names of the OOD detectors to fit.
        detector_data: Known images for the detectors; by default those of ``head``.
        precisions: Further graphs, and what they are calibrated on.

    Raises:
        NotFound: If the run is not complete.
        InvalidInput: If a file of the run, a name or the data does not fit.
        AlreadyExists: If the version is taken.
        ParityFailed: If a graph differs from the torch encoder by more than its limit, which
            is 1e-5 in fp32.
    """
    additions = Additions(head, tuple(detectors), detector_data)
    target = Target(Path(models), name, version)
    return bundle_source(read_run(run), target, additions, precisions)


def read_run(run: str | Path) -> Source:
    """Read a run's folder.

    Raises:
        NotFound: If a file is missing, because the run is not finished or is none.
        InvalidInput: If weights and architecture do not fit, or a file is damaged.
    """
    folder = Path(run)
    encoder = build_encoder(_read_json(folder, "encoder.json"))
    weights = _read(folder, "encoder.safetensors")
    try:
        encoder.load_state_dict(load(weights))
    except (RuntimeError, SafetensorError) as error:
        raise InvalidInput(
            f"expected the weights of {folder / 'encoder.json'} in encoder.safetensors, "
            f"got {error}"
        ) from error
    facts = _read_json(folder, "run.json")
    recipe = _read(folder, "recipe.toml")
    try:
        source = tomllib.loads(recipe.decode()).get("data", {}).get("source", "")
    except ValueError as error:
        raise InvalidInput(f"expected TOML in {folder / 'recipe.toml'}, got {error}") from error
    objective = str(facts.get("objective", "external"))
    return Source(
        encoder=encoder,
        objective=objective,
        origin=f"Trained by embedkit with the objective `{objective}`.",
        head=_own_head(folder),
        recipe=recipe,
        data=str(source),
        data_digest=str(facts.get("data_digest", "")),
        facts={
            f"training {key}": f"{facts[key]:.4g}" if key == "seconds" else str(facts[key])
            for key in ("images", "steps", "seconds", "device")
            if key in facts
        },
    )


def _own_head(folder: Path) -> Head | None:
    path = folder / "head.npz"
    if not path.is_file():
        return None
    try:
        return Head.from_arrays(unpack_arrays(path.read_bytes()))
    except (BundleDamaged, ValueError) as error:
        raise InvalidInput(
            f"expected the run's classifier in {path}, got a file that does not read as one "
            f"({error}); delete it to export the run without it"
        ) from error


def _read_json(folder: Path, name: str) -> dict[str, object]:
    data = _read(folder, name)
    try:
        return dict(json.loads(data))
    except (ValueError, TypeError) as error:
        raise InvalidInput(f"expected a JSON object in {folder / name}, got {error}") from error


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise NotFound(
            f"expected a finished training run with {name} at {folder}, got none; "
            "run `embedkit train RECIPE --out RUN`, with --resume if it was interrupted"
        ) from error
