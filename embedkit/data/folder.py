"""Folders of image files: class sub-folders, or flat."""

import os
import stat
from functools import partial
from pathlib import Path

from embedkit.data.dataset import Dataset
from embedkit.data.files import MAX_FILE_BYTES, ImageFile, collect
from embedkit.data.tree import Layout, lay_out
from embedkit.errors import BadImage, InvalidInput

__all__ = ["list_folder", "load_folder", "read_regular_file"]


def load_folder(path: Path, split: str | None = None, *, strict: bool = False) -> Dataset:
    """Read a folder: each sub-folder is a class; without sub-folders there are no labels.

    Files keep their bytes; ids are paths relative to ``path``. Hidden files are not counted,
    every other file that holds no image is left out and reported.

    Args:
        path: The folder.
        split: A sub-folder (``train``, ``test``, ...) that has the class folders; by default
            ``train`` where all sub-folders are splits.
        strict: Whether one bad file is an error.

    Raises:
        InvalidInput: If the split is missing, nothing is readable, or under ``strict`` a file
            is bad.
    """
    files, layout = list_folder(path, split)
    return collect(
        Path(os.path.abspath(path)).name,
        files,
        class_names=layout.class_names,
        strict=strict,
        outside=layout.outside,
    )


def list_folder(path: Path, split: str | None = None) -> tuple[list[ImageFile], Layout]:
    """The files of a folder that may hold images, in order, and how they are laid out.

    Raises:
        InvalidInput: If the split is missing, or there are no files.
    """
    relative = [
        os.path.relpath(os.path.join(folder, name), path).replace(os.sep, "/")
        for folder, _, names in os.walk(path)
        for name in names
    ]
    if not relative:
        raise InvalidInput(f"expected image files in the folder {path}, got no files")
    layout = lay_out(relative, split, f"the folder {path}")
    files = [
        ImageFile(member, label, partial(read_regular_file, path / member))
        for member, label in layout.members
    ]
    return files, layout


def read_regular_file(path: Path) -> bytes:
    """Bytes of a file of sane size; never waits on a pipe or a device.

    Raises:
        BadImage: If it is no regular file or larger than ``MAX_FILE_BYTES``.
        OSError: If it cannot be read.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise BadImage("expected an image file, got a pipe, socket or device")
    if status.st_size > MAX_FILE_BYTES:
        raise BadImage(
            f"expected an image file of at most {MAX_FILE_BYTES:,} bytes, "
            f"got {status.st_size:,}"
        )
    return path.read_bytes()
