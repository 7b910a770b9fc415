"""CIFAR-10 in its binary version; the Python version is pickles, which can run code."""

from pathlib import Path

import numpy as np

from embedkit.data.dataset import Dataset
from embedkit.data.splits import choose_split
from embedkit.errors import InvalidInput

__all__ = ["CLASSES", "load_cifar10"]

_FILES = {
    "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    "test": ("test_batch.bin",),
}
CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
"""Names of the ten classes, in order."""
_SUBFOLDER = "cifar-10-batches-bin"
_RECORD_BYTES = 1 + 3 * 32 * 32


def load_cifar10(path: Path, split: str | None = None) -> Dataset:
    """Read ``data_batch_1.bin`` to ``data_batch_5.bin``, or ``test_batch.bin``.

    Args:
        path: Folder with the files, or the folder around ``cifar-10-batches-bin``.
        split: ``train`` or ``test``; by default ``train``, or the only one.

    Raises:
        InvalidInput: If the files are missing or damaged.
    """
    folder = path / _SUBFOLDER if (path / _SUBFOLDER).is_dir() else path
    found = {
        name: files
        for name, files in _FILES.items()
        if all((folder / file).is_file() for file in files)
    }
    if not found:
        pickles = (folder / "data_batch_1").is_file() or (folder / "test_batch").is_file()
        got = "the Python version (pickles, which are not read)" if pickles else "no such files"
        raise InvalidInput(
            f"expected the binary version of CIFAR-10 (data_batch_1.bin to data_batch_5.bin, "
            f"test_batch.bin) in {path}, got {got}"
        )
    chosen = choose_split(split, found, str(path))
    records = np.concatenate([_records(folder / file) for file in found[chosen]])
    labels = records[:, 0].astype(np.int64)
    planes = records[:, 1:].reshape(-1, 3, 32, 32)
    images = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
    ids = tuple(f"{chosen}/{index}" for index in range(len(images)))
    return Dataset("cifar10", images, labels, CLASSES, ids)


def _records(file: Path) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    data = np.fromfile(file, dtype=np.uint8)
    if not data.size or data.size % _RECORD_BYTES or data[::_RECORD_BYTES].max() > 9:
        raise InvalidInput(
            f"expected records of {_RECORD_BYTES:,} bytes that start with a label from 0 to 9 "
            f"in {file}, got {data.size:,} bytes of something else"
        )
    return data.reshape(-1, _RECORD_BYTES)
