"""Data larger than memory: a folder or one ``.npy`` file, read an image at a time."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from embedkit.data.folder import list_folder
from embedkit.data.labels import class_order, index_labels
from embedkit.data.source import path_and_split
from embedkit.errors import BadImage, InvalidInput
from embedkit.types import Images, Labels

__all__ = ["LazyDataset", "open_lazily"]

_EDGE_BYTES = 2**20
"""Of an array file's beginning and end, which stand for its content in the digest."""
_EXPECTED = (
    "a folder of images or FILE.npy to read as training goes on (leave data.stream out to load "
    "other data whole)"
)


@dataclass(frozen=True, eq=False)
class LazyDataset:
    """Images that stay where they are until one is asked for.

    Attributes:
        name: Of the file or folder.
        ids: Path or position of each image.
        read: An image by its position: its file's bytes, or one image of the array.
        labels: (n,) class indices, or None.
        class_names: Name of each class index.
        image_shape: Height, width and channels where all are the same, else None.
        digest: ``sha256:...`` of what identifies the data without reading all of it: of a
            folder paths and sizes of all files, of an array file its size, header and ends.
    """

    name: str
    ids: tuple[str, ...]
    read: Callable[[int], bytes | Images]
    labels: Labels | None
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int] | None
    digest: str

    def __len__(self) -> int:
        return len(self.ids)

    def first(self, count: int) -> "LazyDataset":
        """The first images, under a digest of their own."""
        labels = None if self.labels is None else self.labels[:count]
        digest = _digest(f"{self.digest} {count}".encode())
        return replace(self, ids=self.ids[:count], labels=labels, digest=digest)


def open_lazily(text: str) -> LazyDataset:
    """Open a DATA string that names a folder or a ``.npy`` file.

    Args:
        text: A folder as for ``load_dataset``; or ``FILE.npy``, uint8 (n, h, w, 1 or 3), with
            its classes, if it has any, in ``FILE.labels.npy``, (n,) integers.

    Raises:
        NotFound: If there is no such file or folder.
        InvalidInput: If it is something else, or an array of another kind.
    """
    path, split = path_and_split(text, _EXPECTED)
    if path.is_dir():
        return _folder(path, split)
    if path.suffix.lower() == ".npy":
        return _array(path)
    raise InvalidInput(f"expected {_EXPECTED}; got {text!r}")


def _folder(path: Path, split: str | None) -> LazyDataset:
    files, layout = list_folder(path, split)
    names = [file.label for file in files if file.label is not None]
    class_names = tuple(layout.class_names or class_order(names)) if names else ()
    sizes = [(file.id, file.label, os.path.getsize(path / file.id)) for file in files]
    return LazyDataset(
        path.resolve().name,
        tuple(file.id for file in files),
        lambda index: files[index].read(),
        index_labels(names, class_names) if names else None,
        class_names,
        None,
        _digest(json.dumps(sizes).encode()),
    )


def _array(path: Path) -> LazyDataset:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InvalidInput(f"expected a whole array in {path}, got: {error}") from error
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] not in (1, 3):
        raise InvalidInput(
            f"expected {path} as uint8 (n, height, width, 1 or 3), got {array.dtype} "
            f"{array.shape}"
        )
    if not array.flags.c_contiguous:
        raise InvalidInput(f"expected {path} in C order, got Fortran order; save it again")
    count, height, width, channels = array.shape
    start, each = int(array.offset), height * width * channels
    # Mapped pages would count as this process's memory: rows are read into its own instead.
    del array
    descriptor = os.open(path, os.O_RDONLY)

    def read(index: int) -> Images:
        data = os.pread(descriptor, each, start + index * each)
        if len(data) != each:
            raise BadImage(f"expected {each} bytes of an image, got {len(data)}")
        return np.frombuffer(data, np.uint8).reshape(1, height, width, channels)

    labels, class_names = _array_labels(path, count)
    size = os.fstat(descriptor).st_size
    edges = os.pread(descriptor, _EDGE_BYTES, 0)
    edges += os.pread(descriptor, _EDGE_BYTES, max(0, size - _EDGE_BYTES))
    ends = b"" if labels is None else labels.tobytes()
    return LazyDataset(
        path.stem,
        tuple(str(i) for i in range(count)),
        read,
        labels,
        class_names,
        (height, width, channels),
        _digest(f"{size}".encode() + edges + ends),
    )


def _array_labels(path: Path, count: int) -> tuple[Labels | None, tuple[str, ...]]:
    beside = path.with_suffix(".labels.npy")
    if not beside.exists():
        return None, ()
    try:
        labels = np.load(beside, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InvalidInput(f"expected a whole array in {beside}, got: {error}") from error
    if labels.shape != (count,) or labels.dtype.kind not in "iu" or labels.min(initial=0) < 0:
        raise InvalidInput(
            f"expected {count} class indices from 0 in {beside}, got {labels.dtype} "
            f"{labels.shape}"
        )
    classes = int(labels.max(initial=-1)) + 1
    return labels.astype(np.int64), tuple(str(i) for i in range(classes))


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()
