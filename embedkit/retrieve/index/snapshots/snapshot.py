"""A segment as a file: a cache that is checked whole before any of it is understood.

Whole vectors beside codes are a file of their own, of which the snapshot has the checksums.

The file is written beside its place, synchronised and renamed. The truth holds the digest of
the one that belongs to it, so that a file of another time, or of another copy of the
collection, is never read, whatever sequence number it claims.
"""

import hashlib
import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO, NamedTuple

import faiss
import numpy as np

from embedkit.retrieve.index.engines.curve import Curve, Point
from embedkit.retrieve.index.engines.hnsw import Graph
from embedkit.retrieve.index.engines.ivf import InvertedFile
from embedkit.retrieve.index.engines.rows import Rows, RowsDamagedError, open_file, remove
from embedkit.retrieve.index.engines.spec import Engine, Spec
from embedkit.retrieve.index.segment import Segment

__all__ = [
    "Snapshot",
    "SnapshotError",
    "check_snapshot",
    "clear",
    "read_snapshot",
    "write_snapshot",
]

_MAGIC = b"embedkit index 2\n"
_SUFFIX = ".snapshot"
_ROWS_SUFFIX = ".rows"
_DIGEST_BYTES = 32
_HEADER_BYTES = 1 << 20


class SnapshotError(Exception):
    """A snapshot is missing, damaged or not of this collection: build anew."""


class Snapshot(NamedTuple):
    """What a file holds.

    Attributes:
        segment: As it was built.
        sequence: Number of the last write that it reflects.
    """

    segment: Segment
    sequence: int


class _Hashing:
    """Writes to a file and remembers the digest of what it wrote."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        return self._file.write(data)


def write_snapshot(folder: Path, segment: Segment, sequence: int) -> str:
    """Make a segment durable; returns the digest to be recorded in the truth.

    Args:
        folder: Of the collection.
        segment: What to write.
        sequence: Number of the last write that it reflects.

    Raises:
        OSError: If the disk refuses; nothing is left behind.
    """
    handle, name = tempfile.mkstemp(prefix=".index-", dir=folder)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            writer = _Hashing(file)
            _write(writer, segment, sequence)
            digest = writer.hash
            file.write(digest.digest())
            file.flush()
            os.fsync(file.fileno())
        if segment.rows is not None:
            segment.rows.move(_path(folder, digest.hexdigest(), _ROWS_SUFFIX))
        temporary.rename(_path(folder, digest.hexdigest()))
        _synchronise(folder)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return digest.hexdigest()


def _write(writer: _Hashing, segment: Segment, sequence: int) -> None:
    header = json.dumps(
        {
            "sequence": sequence,
            "last_slot": segment.last_slot,
            "count": len(segment.slots),
            "blocks": None if segment.rows is None else len(segment.rows.sums),
            "spec": asdict(segment.spec),
            "curve": asdict(segment.curve),
            "largest_error": segment.largest_error,
            "faiss": faiss.__version__,
        }
    ).encode()
    writer.write(_MAGIC + len(header).to_bytes(8, "little") + header)
    writer.write(segment.slots.astype("<i8").tobytes())
    if segment.rows is not None:
        writer.write(segment.rows.sums.astype("<u4").tobytes())
    sink = faiss.PyCallbackIOWriter(writer.write, 1 << 20)  # type: ignore[attr-defined]
    faiss.write_index(segment.engine.index, sink)


def read_snapshot(folder: Path, digest: str) -> Snapshot:
    """Read the snapshot that belongs to a collection.

    Args:
        folder: Of the collection.
        digest: Recorded in the truth.

    Raises:
        SnapshotError: If it cannot be used, with the reason.
    """
    content = memoryview(_content(folder, digest))
    start = len(_MAGIC) + 8
    size = int.from_bytes(content[len(_MAGIC) : start], "little")
    try:
        if content[: len(_MAGIC)] != _MAGIC or size > _HEADER_BYTES:
            raise ValueError("another format")
        header = json.loads(bytes(content[start : start + size]))
        found = Spec(**header["spec"])
        curve = Curve(
            header["curve"]["width"], tuple(Point(**p) for p in header["curve"]["points"])
        )
        end = start + size + 8 * header["count"]
        slots = np.frombuffer(content[start + size : end], "<i8").astype(np.int64)
        blocks = header["blocks"]
        sums = np.frombuffer(content[end : end + 4 * (blocks or 0)], "<u4")
        end += sums.nbytes
        index = faiss.deserialize_index(np.frombuffer(content[end:], np.uint8))
        engine = _engine(index, found, len(slots))
        sequence = int(header["sequence"])
        rows = None
        if blocks is not None:
            path = _path(folder, digest, _ROWS_SUFFIX)
            rows = Rows(path, (len(slots), found.dim), sums.astype(np.uint32))
    except (ValueError, KeyError, TypeError, RuntimeError, OSError) as error:
        raise SnapshotError(f"expected an index snapshot, got {error}") from error
    except RowsDamagedError as error:
        raise SnapshotError(str(error)) from error
    if (rows is None) != found.holds_vectors:
        raise SnapshotError(f"expected a file of vectors for codes alone, got {found}")
    last_slot, largest_error = header["last_slot"], header["largest_error"]
    segment = Segment(found, engine, slots, last_slot, rows, curve, largest_error)
    return Snapshot(segment, sequence)


def check_snapshot(folder: Path, digest: str) -> str:
    """What is wrong with the files of a snapshot; empty if nothing is."""
    try:
        rows = read_snapshot(folder, digest).segment.rows
    except SnapshotError as error:
        return str(error)
    return "" if rows is None else rows.check()


def clear(folder: Path, keep: str) -> None:
    """Remove every snapshot but one, and what an ended process was writing."""
    kept = [_path(folder, keep, suffix) for suffix in (_SUFFIX, _ROWS_SUFFIX) if keep]
    for pattern in (f"index-*{_SUFFIX}", f"index-*{_ROWS_SUFFIX}", ".index-*", ".rows-*"):
        for path in folder.glob(pattern):
            if path not in kept:
                remove(path)


def _path(folder: Path, digest: str, suffix: str = _SUFFIX) -> Path:
    return folder / f"index-{digest[:16]}{suffix}"


def _content(folder: Path, digest: str) -> bytes:
    """The bytes of a snapshot, if they are those of the digest.

    They are read into memory and not mapped: a mapped file that shrinks ends the process.
    """
    if not digest:
        raise SnapshotError("no snapshot has been written")
    path = _path(folder, digest)
    try:
        with os.fdopen(open_file(path), "rb") as file:
            content = file.read()
    except OSError as error:
        raise SnapshotError(f"expected {path}, got {error.strerror}") from error
    except RowsDamagedError as error:
        raise SnapshotError(str(error)) from error
    body = memoryview(content)[:-_DIGEST_BYTES]
    found = hashlib.sha256(body).digest()
    if found != content[-_DIGEST_BYTES:] or found.hex() != digest:
        raise SnapshotError(f"expected {path} with the digest {digest}, got {found.hex()}")
    return content[:-_DIGEST_BYTES]


def _engine(index: faiss.Index, spec: Spec, count: int) -> Engine:
    """Wrap an index, if it is what the header says."""
    is_fitting = (index.d, index.ntotal, index.metric_type) == (
        spec.dim,
        count,
        spec.faiss_metric,
    )
    if is_fitting and spec.kind == "hnsw" and isinstance(index, faiss.IndexHNSW):
        return Graph(index)
    if is_fitting and spec.kind != "hnsw" and isinstance(index, faiss.IndexIVF):
        return InvertedFile(index, spec.holds_vectors)
    raise ValueError(f"{type(index).__name__} of {index.ntotal} x {index.d}")


def _synchronise(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
