"""IDX files, the form that MNIST and its relatives are published in."""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedkit.data.dataset import Dataset
from embedkit.data.labels import read_labels
from embedkit.data.splits import choose_split
from embedkit.errors import InvalidInput

__all__ = ["load_idx"]

_PREFIXES = {"train": "train", "test": "t10k"}
_MAX_BYTES = 4 * 2**30
_UNSIGNED_BYTE = 8


def load_idx(path: Path, split: str | None = None) -> Dataset:
    """Read ``train-images-idx3-ubyte`` and its labels, or those of ``t10k``; ``.gz`` as well.

    Args:
        path: Folder with the files; their number before ``-ubyte`` may follow a dot or a dash.
        split: ``train`` or ``test``; by default ``train``, or the only one.

    Raises:
        InvalidInput: If the files are missing, damaged or do not match each other.
    """
    found = {
        name: image_file
        for name, prefix in _PREFIXES.items()
        if (image_file := _find(path, f"{prefix}-images", 3))
    }
    if not found:
        names = sorted(file.name for file in path.iterdir())[:5] if path.is_dir() else []
        raise InvalidInput(
            f"expected train-images-idx3-ubyte or t10k-images-idx3-ubyte (or .gz) in {path}, "
            f"got {', '.join(names) or 'no files'}"
        )
    chosen = choose_split(split, found, str(path))
    images = _read(found[chosen], 3)[..., np.newaxis]
    ids = tuple(f"{chosen}/{index}" for index in range(len(images)))
    columns = {
        name: _read(label_file, 1)
        for name in found
        if (label_file := _find(path, f"{_PREFIXES[name]}-labels", 1))
    }
    if chosen not in columns:
        return Dataset(path.absolute().name, images, ids=ids)
    labels, class_names = read_labels(columns, chosen, None, str(path))
    if len(labels) != len(images):
        raise InvalidInput(
            f"expected one label per image of {chosen} in {path}, got {len(labels)} for "
            f"{len(images)} images"
        )
    return Dataset(path.absolute().name, images, labels, class_names, ids)


def _find(folder: Path, stem: str, axes: int) -> Path | None:
    for name in (f"{stem}-idx{axes}-ubyte", f"{stem}.idx{axes}-ubyte"):
        for file in (folder / name, folder / f"{name}.gz"):
            if file.is_file():
                return file
    return None


def _read(file: Path, axes: int) -> npt.NDArray[np.uint8]:
    try:
        data = _unpacked(file)
        kind, found_axes = struct.unpack_from(">xxBB", data)
        shape = struct.unpack_from(f">{axes}I", data, 4)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise InvalidInput(f"expected an IDX file in {file}, got: {error}") from error
    values = np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * axes)
    size = int(np.prod(shape, dtype=object))
    if (kind, found_axes) != (_UNSIGNED_BYTE, axes) or size != values.size or not size:
        raise InvalidInput(
            f"expected {axes} axes of unsigned bytes in {file}, got type {kind:#x}, "
            f"{found_axes} axes, {shape} declared and {values.size:,} bytes"
        )
    return values.reshape(shape)


def _unpacked(file: Path) -> bytes:
    with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
        data = stream.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise OSError(f"more than {_MAX_BYTES:,} bytes")
    return data
