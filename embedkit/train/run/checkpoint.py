"""Files that are either whole or absent, and the checkpoint among them."""

import io
import os
import pickle
from pathlib import Path

import torch

from embedkit.errors import BundleDamaged

__all__ = ["read_checkpoint", "write_checkpoint", "write_file"]

# What torch's unpickler was seen to raise on bytes that are no checkpoint.
_UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
)


def write_file(path: Path, data: bytes) -> None:
    """Replace a file so that a crash at any moment leaves the old content or the new one.

    Args:
        path: In a folder that exists.
        data: The whole new content.
    """
    staging = path.with_name(f".{path.name}.writing")
    with staging.open("wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())
    staging.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_checkpoint(path: Path, values: dict[str, object]) -> None:
    """Write tensors and plain values, whole or not at all."""
    buffer = io.BytesIO()
    torch.save(values, buffer)
    write_file(path, buffer.getvalue())


def read_checkpoint(path: Path) -> dict[str, object]:
    """Read what ``write_checkpoint`` wrote; never runs code that a file may hold.

    Raises:
        BundleDamaged: If the file is not a checkpoint of tensors and plain values.
    """
    data = io.BytesIO(path.read_bytes())
    try:
        values = torch.load(data, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        # torch's own message would advise to load it with code.
        raise BundleDamaged(
            f"expected a checkpoint of tensors in {path}, got a file that does not read as one "
            f"({type(error).__name__}); delete it to start anew"
        ) from error
    if not isinstance(values, dict):
        raise BundleDamaged(f"expected a checkpoint in {path}, got {type(values).__name__}")
    return values
