"""A finished encoder's weights and normalisation, to go on from."""

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from embedkit.encoders.encoder import Encoder
from embedkit.errors import BundleDamaged, InvalidInput, NotFound

__all__ = ["load_normalisation", "load_weights"]


def load_weights(encoder: Encoder, path: Path) -> None:
    """Give an encoder the weights of a file, in place; loading never runs code.

    Args:
        encoder: Of the same architecture.
        path: The ``encoder.safetensors`` of a run folder or a bundle.

    Raises:
        NotFound: If there is no such file.
        BundleDamaged: If it does not read as one.
        InvalidInput: If it holds the weights of another encoder.
    """
    if not path.is_file():
        raise NotFound(
            f"expected the weights of an encoder in {path}, got no such file; name a run "
            "folder or a bundle that has its weights beside its graph"
        )
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise BundleDamaged(f"expected safetensors in {path}, got {error}") from error
    try:
        encoder.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise InvalidInput(
            f"expected weights of the recipe's encoder in {path}, got others ({reason}); take "
            "the encoder's arguments from recipe.toml beside them"
        ) from error


def load_normalisation(folder: Path) -> dict[str, list[float]]:
    """The ``mean`` and ``std`` of a finished encoder; its weights mean little with others.

    Args:
        folder: A run folder with ``encoder.json``, or a bundle.

    Raises:
        NotFound: If neither says how its encoder was built.
        BundleDamaged: If what says it does not read as that.
    """
    for path in (folder / "encoder.json", folder / "manifest.json"):
        if not path.is_file():
            continue
        try:
            values = json.loads(path.read_bytes())
            config = values["encoder"] if path.name == "manifest.json" else values
            return {name: [float(x) for x in config[name]] for name in ("mean", "std")}
        except (ValueError, KeyError, TypeError) as error:
            raise BundleDamaged(
                f"expected an encoder's mean and std in {path}, got {error!r}"
            ) from error
    raise NotFound(
        f"expected encoder.json or manifest.json beside the weights in {folder}, got neither; "
        "set encoder.mean and encoder.std to those that the weights were trained with"
    )
