"""Mosaics: many small images as tiles of a few large ones, with ``labels.npz`` beside them."""

import io
import re
import zipfile
from collections.abc import Callable, Sequence

import numpy as np

from embedkit.data.dataset import Dataset
from embedkit.data.labels import read_labels
from embedkit.data.splits import choose_split
from embedkit.errors import BadImage, InvalidInput
from embedkit.preprocess import decode
from embedkit.types import Images, Labels

__all__ = ["LABELS_FILE", "is_mosaic", "load_mosaic"]

LABELS_FILE = "labels.npz"
TILES_PER_ROW = 40
_MEMBER = re.compile(r"([a-z]+)_(\d+)\.(?:webp|png)")


def is_mosaic(names: Sequence[str]) -> bool:
    """Whether the members of an archive are mosaics."""
    return LABELS_FILE in names and any(_MEMBER.fullmatch(name) for name in names)


def load_mosaic(
    name: str, names: Sequence[str], read: Callable[[str], bytes], split: str | None = None
) -> Dataset:
    """Cut one split of a mosaic archive into its images.

    The members are ``<split>_<number>.webp``, each with 40 square tiles per row, and
    ``labels.npz`` with ``y_<split>`` (or ``y`` for ``images_<number>.webp``) and ``classes``.

    Args:
        name: Name of the data set.
        names: Members of the archive.
        read: Returns a member's bytes.
        split: ``train`` or ``test``; by default ``train``, or the only one.

    Raises:
        InvalidInput: If there is no such split, a member is damaged, or tiles and labels do
            not match.
    """
    members: dict[str, list[str]] = {}
    for member in sorted(names):
        if match := _MEMBER.fullmatch(member):
            members.setdefault(match[1], []).append(member)
    chosen = choose_split(split, members, name)
    images = np.concatenate([_tiles(member, read) for member in members[chosen]])
    labels, class_names = _labels(read(LABELS_FILE), chosen, f"{LABELS_FILE} of {name}")
    if len(labels) != len(images):
        raise InvalidInput(
            f"expected {len(images):,} labels of {chosen} in {LABELS_FILE} of {name}, got "
            f"{len(labels):,}"
        )
    ids = tuple(f"{chosen}/{index}" for index in range(len(images)))
    return Dataset(name, images, labels, class_names, ids)


def _labels(data: bytes, split: str, source: str) -> tuple[Labels, tuple[str, ...]]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = dict(archive)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidInput(f"expected arrays in {source}, got: {error}") from error
    classes = arrays.pop("classes", None)
    key = f"y_{split}" if f"y_{split}" in arrays else "y"
    if key not in arrays:
        raise InvalidInput(f"expected y_{split} or y in {source}, got {', '.join(arrays)}")
    columns = {name: array for name, array in arrays.items() if name[:2] in {"y", "y_"}}
    return read_labels(columns, key, classes, source)


def _tiles(member: str, read: Callable[[str], bytes]) -> Images:
    try:
        mosaic = decode(read(member))
    except BadImage as error:
        raise BadImage(f"{member}: {error}") from error
    height, width, channels = mosaic.shape
    side = width // TILES_PER_ROW
    if not side or width % TILES_PER_ROW or height % side:
        raise InvalidInput(
            f"expected {TILES_PER_ROW} square tiles per row in {member}, got a mosaic of "
            f"{width} x {height} pixels"
        )
    rows = mosaic.reshape(height // side, side, TILES_PER_ROW, side, channels)
    return rows.transpose(0, 2, 1, 3, 4).reshape(-1, side, side, channels)
