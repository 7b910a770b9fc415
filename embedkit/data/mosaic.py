"""Mosaics: many small images as tiles of a few large ones, with ``labels.npz`` beside them."""

import io
import re
import zipfile
from collections.abc import Sequence

import numpy as np

from embedkit.data.dataset import Dataset
from embedkit.data.labels import numbered_names
from embedkit.data.splits import choose_split
from embedkit.errors import InvalidInput
from embedkit.preprocess import decode
from embedkit.types import Images

__all__ = ["LABELS_FILE", "is_mosaic", "load_mosaic"]

LABELS_FILE = "labels.npz"
TILES_PER_ROW = 40
_MEMBER = re.compile(r"([a-z]+)_(\d+)\.(?:webp|png)")


def is_mosaic(names: Sequence[str]) -> bool:
    """Whether the members of an archive are mosaics."""
    return LABELS_FILE in names and any(_MEMBER.fullmatch(name) for name in names)


def load_mosaic(archive: zipfile.ZipFile, name: str, split: str | None = None) -> Dataset:
    """Cut one split of a mosaic archive into its images.

    The members are ``<split>_<number>.webp``, each with 40 square tiles per row, and
    ``labels.npz`` with ``y_<split>`` (or ``y`` for ``images_<number>.webp``) and ``classes``.

    Args:
        archive: The archive, with members of a size that was checked.
        name: Name of the data set.
        split: ``train`` or ``test``; by default ``train``, or the only one.

    Raises:
        InvalidInput: If there is no such split, or tiles and labels do not match.
    """
    members: dict[str, list[str]] = {}
    for member in sorted(archive.namelist()):
        if match := _MEMBER.fullmatch(member):
            members.setdefault(match[1], []).append(member)
    chosen = choose_split(split, members, name)
    images = np.concatenate(
        [_tiles(decode(archive.read(part)), part) for part in members[chosen]]
    )
    with np.load(io.BytesIO(archive.read(LABELS_FILE)), allow_pickle=False) as labels_file:
        key = f"y_{chosen}" if f"y_{chosen}" in labels_file else "y"
        if key not in labels_file or len(labels_file[key]) != len(images):
            raise InvalidInput(
                f"expected {len(images):,} labels as {key} in {LABELS_FILE} of {name}, got "
                f"the keys {', '.join(labels_file)}"
            )
        labels = labels_file[key]
        class_names = numbered_names(labels, f"{key} of {name}")
        if "classes" in labels_file:
            class_names = tuple(str(label) for label in labels_file["classes"])
    ids = tuple(f"{chosen}/{index}" for index in range(len(images)))
    return Dataset(name, images, labels.astype(np.int64), class_names, ids)


def _tiles(mosaic: Images, member: str) -> Images:
    height, width, channels = mosaic.shape
    side = width // TILES_PER_ROW
    if not side or width % TILES_PER_ROW or height % side:
        raise InvalidInput(
            f"expected {TILES_PER_ROW} square tiles per row in {member}, got a mosaic of "
            f"{width} x {height} pixels"
        )
    rows = mosaic.reshape(height // side, side, TILES_PER_ROW, side, channels)
    return rows.transpose(0, 2, 1, 3, 4).reshape(-1, side, side, channels)
