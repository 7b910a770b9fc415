"""Whole vectors of an index in a file, for what holds only codes of them: a cache.

A row is read with one system call where SQLite takes several times as long. The file is read
and not mapped: mapped pages would count as memory of the process, and a mapped file that
shrinks ends it.
"""

import logging
import os
import shutil
import stat
import tempfile
import weakref
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedkit.types import Embeddings

__all__ = ["RowWriter", "Rows", "RowsDamagedError", "open_file", "remove"]

_LOG = logging.getLogger(__name__)

# What is checked at once, the first time that one of its rows is read.
_BLOCK_BYTES = 32 << 10
_BLOCKS_AT_ONCE = 64

Positions = npt.NDArray[np.int64]
Sums = npt.NDArray[np.uint32]


class RowsDamagedError(Exception):
    """The file does not have what was written: take the vectors from the truth."""


def open_file(path: Path) -> int:
    """Open a file of the cache to read; returns its descriptor.

    Raises:
        OSError: If it cannot be opened, or is a link.
        RowsDamagedError: If it is something else than a file, which is not waited for.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise RowsDamagedError(f"expected {path} to be a file, got something else")
    return handle


def remove(path: Path) -> None:
    """Remove a part of the cache, whatever it is; warn of what cannot be removed."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        shutil.rmtree(path, ignore_errors=True)
        if path.is_dir() or not isinstance(error, IsADirectoryError):
            _LOG.warning("%s could not be removed: %s", path, error.strerror)


class Rows:
    """Prepared vectors by position, each block checked before it is used.

    Args:
        path: Of the file.
        shape: (n, d) of its vectors.
        sums: CRC-32 of each block.
        is_checked: Whether the blocks are known to be good.

    Raises:
        OSError: If the file cannot be opened.
        RowsDamagedError: If it is no file, or has another size.

    Attributes:
        path: Where the file is.
        sums: As above.
        is_damaged: Whether a block was not what had been written; nothing is read any more.
    """

    def __init__(
        self, path: Path, shape: tuple[int, int], sums: Sums, *, is_checked: bool = False
    ) -> None:
        self.path = path
        self.sums = sums
        self.is_damaged = False
        self._count, self._dim = shape
        self._file = open_file(path)
        weakref.finalize(self, os.close, self._file)
        self._checked = np.full(len(sums), is_checked)
        size, blocks = os.fstat(self._file).st_size, -(-self._count // _block_rows(self._dim))
        if (size, len(sums)) != (self._count * 4 * self._dim, blocks):
            raise RowsDamagedError(
                f"expected {path} with {self._count} x {self._dim} numbers, got {size} bytes"
            )

    def read(self, positions: Positions) -> Embeddings:
        """Vectors (..., d) of positions of any shape.

        Raises:
            RowsDamagedError: If one cannot be read.
        """
        if self.is_damaged:
            raise RowsDamagedError
        self._check(positions // _block_rows(self._dim))
        file, width, read = self._file, 4 * self._dim, os.pread
        places = (positions.ravel() * width).tolist()
        try:
            data = b"".join([read(file, width, place) for place in places])
        except OSError as error:
            raise self._damaged(str(error)) from error
        if len(data) != positions.size * width:
            raise self._damaged("it has become shorter")
        return np.frombuffer(data, "<f4").reshape(*positions.shape, self._dim)

    def stream(self) -> Iterator[tuple[int, Embeddings]]:
        """Every vector, some thousand at a time, with the position of the first.

        Raises:
            RowsDamagedError: If one cannot be read.
        """
        step = _block_rows(self._dim)
        for block in range(0, len(self.sums), _BLOCKS_AT_ONCE):
            parts = range(block, min(block + _BLOCKS_AT_ONCE, len(self.sums)))
            yield block * step, np.concatenate([self._block(number) for number in parts])

    def check(self) -> str:
        """What is wrong with the file; empty if nothing is."""
        try:
            found = [zlib.crc32(self._bytes(number)) for number in range(len(self.sums))]
        except OSError as error:
            return f"expected {self.path}, got {error}"
        wrong = np.flatnonzero(np.array(found, np.uint32) != self.sums)[:3].tolist()
        return f"expected {self.path} as written, got other blocks: {wrong}" if wrong else ""

    def move(self, path: Path) -> None:
        """Make the file durable under another name of the same folder, but for that name.

        Raises:
            OSError: If the disk refuses.
        """
        os.fsync(self._file)
        self.path = self.path.rename(path)

    def _check(self, blocks: Positions) -> None:
        known = self._checked[blocks]
        if not known.all():
            for block in np.unique(blocks[~known]).tolist():
                self._block(block)
                self._checked[block] = True

    def _block(self, number: int) -> Embeddings:
        """The rows of a block, checked."""
        try:
            data = self._bytes(number)
        except OSError as error:
            raise self._damaged(str(error)) from error
        if zlib.crc32(data) != self.sums[number]:
            raise self._damaged(f"block {number} is not what was written")
        return np.frombuffer(data, "<f4").reshape(-1, self._dim)

    def _bytes(self, number: int) -> bytes:
        size = _block_rows(self._dim) * 4 * self._dim
        return os.pread(self._file, size, number * size)

    def _damaged(self, reason: str) -> RowsDamagedError:
        """Note it, and remove the file: the next start builds the index anew."""
        if not self.is_damaged:
            self.is_damaged = True
            _LOG.warning("%s: %s; vectors are read from the truth instead", self.path, reason)
            remove(self.path)
        return RowsDamagedError(f"expected {self.path} as it was written: {reason}")


class RowWriter:
    """Writes the vectors of an index that is being built into a temporary file.

    Args:
        folder: Where.
        dim: Dimensions.

    Raises:
        OSError: If the disk refuses.
    """

    def __init__(self, folder: Path, dim: int) -> None:
        handle, name = tempfile.mkstemp(prefix=".rows-", dir=folder)
        self._file = os.fdopen(handle, "wb")
        self._path = Path(name)
        self._dim = dim
        self._count = 0
        self._size = _block_rows(dim) * 4 * dim
        self._pending = b""
        self._sums: list[int] = []

    def add(self, vectors: Embeddings) -> None:
        """Write the vectors (n, d) of the next positions."""
        data = self._pending + np.ascontiguousarray(vectors, "<f4").tobytes()
        whole = len(data) - len(data) % self._size
        self._write(data[:whole])
        self._pending = data[whole:]
        self._count += len(vectors)

    def rows(self) -> Rows:
        """The file, complete."""
        self._write(self._pending)
        self._file.close()
        shape, sums = (self._count, self._dim), np.array(self._sums, np.uint32)
        return Rows(self._path, shape, sums, is_checked=True)

    def discard(self) -> None:
        """Remove the file."""
        self._file.close()
        self._path.unlink(missing_ok=True)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        parts = range(0, len(data), self._size)
        self._sums += [zlib.crc32(view[at : at + self._size]) for at in parts]
        self._file.write(data)


def _block_rows(dim: int) -> int:
    return max(1, _BLOCK_BYTES // (4 * dim))
