"""Zip archives of image files, read without being unpacked."""

import zipfile
from functools import partial
from pathlib import Path, PurePosixPath

from embedkit.data.dataset import Dataset, Skipped
from embedkit.data.files import MAX_FILE_BYTES, ImageFile, collect
from embedkit.data.labels import class_order
from embedkit.data.manifest import read_rows, select_rows
from embedkit.data.mosaic import is_mosaic, load_mosaic
from embedkit.data.tree import is_hidden, lay_out
from embedkit.errors import BadImage, InvalidInput

__all__ = ["MAX_ARCHIVE_BYTES", "load_zip"]

MAX_ARCHIVE_BYTES = 16 * 2**30
"""Limit of what all members may unpack to, by the archive's own directory."""

MANIFEST = "labels.csv"


def load_zip(path: Path, split: str | None = None, *, strict: bool = False) -> Dataset:
    """Read the images of a zip archive.

    It may hold class folders or a flat list (one folder around everything is ignored), files
    named by a ``labels.csv`` (``path`` or ``file``, ``label``, ``split`` or ``group``), or
    mosaics with ``labels.npz``. Nothing is ever written to disk.

    Args:
        path: The archive.
        split: A top folder, a value of the manifest's split column, or a mosaic's prefix.
        strict: Whether one bad file is an error.

    Raises:
        InvalidInput: If it is no zip archive, unpacks to too much, or nothing is readable.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_total(archive, path)
            return _load(archive, path, split, strict=strict)
    except zipfile.BadZipFile as error:
        raise InvalidInput(f"expected a zip archive in {path}, got: {error}") from error


def _check_total(archive: zipfile.ZipFile, path: Path) -> None:
    total = sum(member.file_size for member in archive.infolist())
    if total > MAX_ARCHIVE_BYTES:
        raise InvalidInput(
            f"expected at most {MAX_ARCHIVE_BYTES:,} bytes in {path}, got a directory that "
            f"declares {total:,}"
        )


def _load(archive: zipfile.ZipFile, path: Path, split: str | None, *, strict: bool) -> Dataset:
    names = [info.filename for info in archive.infolist() if not info.is_dir()]
    if is_mosaic(names):
        return load_mosaic(path.stem, names, partial(_read_member, archive), split)
    if MANIFEST in names:
        return _from_manifest(archive, path, split, strict=strict)
    outside = tuple(
        Skipped(name, "expected a path inside the archive, got one that leaves it")
        for name in names
        if not _stays_inside(name)
    )
    inside = [name for name in names if _stays_inside(name) and not is_hidden(name)]
    if not inside and not outside:
        raise InvalidInput(f"expected image files in {path}, got an empty archive")
    root = _common_folder(inside)
    layout = lay_out([name.removeprefix(root) for name in inside], split, str(path))
    files = [
        ImageFile(name, label, partial(_read_member, archive, root + name))
        for name, label in layout.members
    ]
    return collect(
        path.stem,
        files,
        class_names=layout.class_names,
        strict=strict,
        outside=(*outside, *layout.outside),
    )


def _from_manifest(
    archive: zipfile.ZipFile, path: Path, split: str | None, *, strict: bool
) -> Dataset:
    source = f"{MANIFEST} of {path}"
    rows = read_rows(_read_member(archive, MANIFEST).decode("utf-8-sig", "replace"), source)
    files = [
        ImageFile(row.path, row.label, partial(_read_member, archive, row.path))
        for row in select_rows(rows, split, source)
    ]
    class_names = class_order(row.label for row in rows if row.label is not None)
    return collect(path.stem, files, class_names=class_names, strict=strict)


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def _common_folder(names: list[str]) -> str:
    """``photos/`` where every file lies in folders of the folder ``photos``, else empty."""
    tops = {name.split("/", 1)[0] for name in names}
    if len(tops) == 1 and all(name.count("/") >= 2 for name in names):
        return f"{tops.pop()}/"
    return ""


def _read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Bytes of one member, at most what its entry declares.

    Raises:
        BadImage: If it is missing, too large, encrypted or damaged.
    """
    try:
        size = archive.getinfo(name).file_size
        if size > MAX_FILE_BYTES:
            raise BadImage(
                f"expected an image file of at most {MAX_FILE_BYTES:,} bytes, got {size:,}"
            )
        return archive.read(name)
    except KeyError:
        raise BadImage("expected a member of the archive, got no such file") from None
    except (RuntimeError, NotImplementedError, zipfile.BadZipFile, EOFError) as error:
        raise BadImage(f"expected a member that can be unpacked, got: {error}") from error
