"""CIFAR-10-C and sets of its layout: a ``.npy`` file per corruption, five severities each."""

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedkit.data.cifar.binary import CLASSES
from embedkit.data.dataset import Dataset
from embedkit.data.labels import numbered_names
from embedkit.data.splits import choose_split
from embedkit.errors import InvalidInput

__all__ = ["load_cifar_c"]

LABELS = "labels.npy"
SEVERITIES = 5


def load_cifar_c(path: Path, split: str | None = None) -> Dataset:
    """Read one corruption at one severity, or at all five.

    ``<corruption>.npy`` is uint8 (5 n, h, w, 3), the n images at severity 1, then at 2, and so
    on; ``labels.npy`` has the 5 n classes. Files are mapped, never unpickled, and only the
    images asked for are read. Ten classes are called as in CIFAR-10, others by their number.

    Args:
        path: Folder with the files.
        split: ``fog`` for all severities or ``fog/3`` for one.

    Raises:
        InvalidInput: If there is no such corruption or severity, or a file is something else.

    Example:
        ``embedkit eval ... --shifted cifar10c:CIFAR-10-C:fog/3``
    """
    corruption, severity = _parsed(split)
    files = {file.stem: file for file in sorted(path.glob("*.npy")) if file.name != LABELS}
    if not files or not (path / LABELS).is_file():
        raise InvalidInput(
            f"expected {LABELS} and a .npy file per corruption in {path}, got "
            f"{', '.join(sorted(files)) or 'none of them'}"
        )
    chosen = choose_split(corruption, files, str(path))
    images, labels = _mapped(files[chosen]), _mapped(path / LABELS)
    _check(images, labels, files[chosen])
    n = len(images) // SEVERITIES
    rows = (
        slice(0, len(images)) if severity is None else slice(n * (severity - 1), n * severity)
    )
    names = numbered_names(np.asarray(labels), str(path / LABELS))
    return Dataset(
        "_".join([path.name, chosen, *([] if severity is None else [str(severity)])]),
        np.array(images[rows]),
        np.array(labels[rows], dtype=np.int64),
        CLASSES if len(names) == len(CLASSES) else names,
        tuple(f"{chosen}/{1 + row // n}/{row % n}" for row in range(len(images))[rows]),
    )


def _parsed(split: str | None) -> tuple[str | None, int | None]:
    """Corruption and severity of ``fog/3``."""
    if split is None or "/" not in split:
        return split, None
    match = re.fullmatch(rf"(\w+)/([1-{SEVERITIES}])", split)
    if match is None:
        raise InvalidInput(
            f"expected a corruption and a severity from 1 to {SEVERITIES} such as fog/3, got "
            f"{split!r}"
        )
    return match[1], int(match[2])


def _mapped(file: Path) -> npt.NDArray[np.generic]:
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
    except (ValueError, OSError, EOFError) as error:
        raise InvalidInput(f"expected a plain numpy array in {file}, got: {error}") from error


def _check(
    images: npt.NDArray[np.generic], labels: npt.NDArray[np.generic], file: Path
) -> None:
    whole = images.ndim == 4 and images.shape[3] in (1, 3) and images.dtype == np.uint8
    if not whole or not len(images) or len(images) % SEVERITIES:
        raise InvalidInput(
            f"expected uint8 images ({SEVERITIES} n, height, width, 1 or 3), {SEVERITIES} "
            f"severities in a row, in {file}, got {images.dtype} {images.shape}"
        )
    if labels.shape != (len(images),):
        raise InvalidInput(
            f"expected one label for each of the {len(images):,} images of {file} in {LABELS}, "
            f"got {labels.shape}"
        )
