"""Weights of a finished encoder, to go on from."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from embedkit.encoders.encoder import Encoder
from embedkit.errors import BundleDamaged, InvalidInput, NotFound

__all__ = ["load_weights"]


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
