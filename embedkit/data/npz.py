"""numpy archives of images: ``x_train y_train x_test y_test`` or ``images labels``."""

import re
import zipfile
from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedkit.data.dataset import Dataset
from embedkit.data.files import ImageFile, collect
from embedkit.data.labels import read_labels
from embedkit.data.splits import choose_split
from embedkit.errors import InvalidInput
from embedkit.types import Images, Labels

__all__ = ["load_npz"]

_Arrays = Mapping[str, npt.NDArray[np.generic]]

_EXPECTED = (
    "x_train, y_train, x_test, y_test (any of them missing), images, labels, "
    "or JPEG files as jpeg_test, offsets_test, y_test"
)
_WHOLE = "images"


def load_npz(path: Path, split: str | None = None, *, strict: bool = False) -> Dataset:
    """Read one split of a ``.npz`` file; only that split is loaded, and never a pickle.

    Images are uint8 (n, h, w), (n, h, w, 1) or (n, h, w, 3). ``jpeg_<split>`` with
    ``offsets_<split>`` is a row of encoded files, where file ``i`` is
    ``jpeg[offsets[i]:offsets[i + 1]]``. ``classes`` names the classes; without it they are
    called by their number.

    Args:
        path: The file.
        split: ``train``, ``test``, ...; by default ``train``, or the only one.
        strict: Whether a damaged encoded file is an error.

    Raises:
        InvalidInput: If the file is no such archive; the message says which keys it has.
    """
    if not zipfile.is_zipfile(path):
        raise InvalidInput(f"expected a .npz archive in {path}, got another kind of file")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return _load(archive, path, split, strict=strict)
    except InvalidInput:
        raise
    except (ValueError, OSError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        raise InvalidInput(
            f"expected whole arrays without pickles in {path}, got: {error}"
        ) from error


def _load(archive: _Arrays, path: Path, split: str | None, *, strict: bool) -> Dataset:
    matches = [re.fullmatch(r"(?:x|jpeg)_(\w+)|images", key) for key in archive]
    splits = {match[1] or _WHOLE: match[0] for match in matches if match}
    if not splits:
        found = ", ".join(archive) or "none"
        raise InvalidInput(f"expected the keys {_EXPECTED} in {path}, got {found}")
    chosen = choose_split(split, splits, str(path))
    labels, class_names = _labels(archive, chosen, path)
    prefix = "" if chosen == _WHOLE else f"{chosen}/"
    if splits[chosen].startswith("jpeg_"):
        return _encoded(archive, path, chosen, (labels, class_names), strict=strict)
    images = _images(archive[splits[chosen]], f"{splits[chosen]} in {path}")
    _check_count(labels, len(images), f"{chosen} in {path}")
    ids = tuple(f"{prefix}{index}" for index in range(len(images)))
    return Dataset(path.stem, images, labels, class_names, ids)


def _images(array: npt.NDArray[np.generic], source: str) -> Images:
    if array.dtype != np.uint8:
        raise InvalidInput(
            f"expected {source} as uint8 with levels from 0 to 255, got {array.dtype}"
        )
    if array.ndim == 3:
        array = array[..., np.newaxis]
    if array.ndim == 4 and array.shape[3] not in (1, 3) and array.shape[1] in (1, 3):
        raise InvalidInput(
            f"expected {source} with channels last, got {array.shape}; "
            "transpose it with (0, 2, 3, 1)"
        )
    if array.ndim != 4 or array.shape[3] not in (1, 3) or not array.size:
        raise InvalidInput(
            f"expected {source} as (n, height, width) or (n, height, width, 1 or 3) with at "
            f"least one image, got {array.shape}"
        )
    return array.view(np.uint8)


def _labels(archive: _Arrays, split: str, path: Path) -> tuple[Labels | None, tuple[str, ...]]:
    """Labels of one split, and the class names of all splits."""
    key = "labels" if split == _WHOLE else f"y_{split}"
    every = {
        name: archive[name] for name in archive if name == "labels" or name.startswith("y_")
    }
    if key not in every:
        return None, ()
    classes = archive.get("classes")
    return read_labels(every, key, classes, str(path))


def _encoded(
    archive: _Arrays,
    path: Path,
    split: str,
    labelled: tuple[Labels | None, tuple[str, ...]],
    *,
    strict: bool,
) -> Dataset:
    labels, class_names = labelled
    if f"offsets_{split}" not in archive:
        raise InvalidInput(f"expected offsets_{split} beside jpeg_{split} in {path}, got none")
    files_end_to_end, offsets = archive[f"jpeg_{split}"], archive[f"offsets_{split}"]
    row = files_end_to_end.tobytes()
    if files_end_to_end.dtype != np.uint8:
        raise InvalidInput(
            f"expected jpeg_{split} in {path} as uint8, got {files_end_to_end.dtype}"
        )
    whole = offsets.ndim == 1 and offsets.dtype.kind in "iu" and offsets.size > 1
    if not whole or np.any(np.diff(offsets) < 0) or offsets[0] < 0 or offsets[-1] > len(row):
        raise InvalidInput(
            f"expected offsets_{split} in {path} as rising integers from 0 to {len(row):,}, "
            f"got {offsets.dtype} {offsets.shape}"
        )
    bounds = [int(offset) for offset in offsets]
    _check_count(labels, len(bounds) - 1, f"{split} in {path}")
    files = [
        ImageFile(
            f"{split}/{index}",
            None if labels is None else class_names[labels[index]],
            partial(_cut, row, start, end),
        )
        for index, (start, end) in enumerate(pairwise(bounds))
    ]
    return collect(path.stem, files, class_names=class_names, strict=strict)


def _cut(row: bytes, start: int, end: int) -> bytes:
    return row[start:end]


def _check_count(labels: Labels | None, images: int, source: str) -> None:
    if labels is not None and len(labels) != images:
        raise InvalidInput(
            f"expected one label per image of {source}, got {len(labels)} for {images} images"
        )
