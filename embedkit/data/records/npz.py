"""A numpy archive: one array of vectors, ids and payloads as UTF-8 end to end with offsets."""

import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedkit.data.records.header import (
    payload_of,
    read_header,
    written_header,
    written_payload,
)
from embedkit.errors import InvalidInput
from embedkit.types import Collection, Record

__all__ = ["read_npz", "write_npz"]

Array = npt.NDArray[np.generic]
_KEYS = (
    "collection",
    "vectors",
    "sequences",
    "ids",
    "ids_offsets",
    "payloads",
    "payloads_offsets",
)


def write_npz(path: Path, collection: Collection, records: Iterable[Record]) -> int:
    """Write records and return their number; see ``write_records``."""
    rows = list(records)
    vectors = [np.empty(0, np.float32) if r.vector is None else r.vector for r in rows]
    ids, ids_offsets = _joined([r.id for r in rows])
    payloads, payloads_offsets = _joined([written_payload(r.payload) for r in rows])
    with path.open("wb") as file:
        np.savez(
            file,
            collection=_bytes(json.dumps(written_header(collection))),
            vectors=np.array(vectors, np.float32).reshape(len(rows), -1),
            sequences=np.array([r.sequence for r in rows], np.uint64),
            ids=ids,
            ids_offsets=ids_offsets,
            payloads=payloads,
            payloads_offsets=payloads_offsets,
        )
    return len(rows)


@contextmanager
def read_npz(path: Path) -> Iterator[tuple[Collection, Iterator[Record]]]:
    """Open a file; see ``read_records``."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in _KEYS if key not in archive]
            if missing:
                raise InvalidInput(f"expected {_KEYS} in {path}, got none of {missing}")
            arrays = {key: archive[key] for key in _KEYS}
            header = json.loads(arrays["collection"].tobytes())
    except InvalidInput:
        raise
    except (ValueError, OSError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        raise InvalidInput(f"expected an archive of records in {path}, got {error}") from error
    yield read_header(header), _records(arrays)


def _records(arrays: Mapping[str, Array]) -> Iterator[Record]:
    vectors, sequences = arrays["vectors"], arrays["sequences"]
    if vectors.dtype != np.float32 or vectors.ndim != 2:
        raise InvalidInput(
            f"expected vectors float32 (n, d), got {vectors.dtype} {vectors.shape}"
        )
    count = len(vectors)
    ids = _texts(arrays["ids"], arrays["ids_offsets"], count)
    payloads = _texts(arrays["payloads"], arrays["payloads_offsets"], count)
    if sequences.shape != (count,) or sequences.dtype.kind != "u":
        raise InvalidInput(f"expected {count} sequence numbers, got {sequences.shape}")
    rows = zip(ids, vectors, payloads, sequences.tolist(), strict=True)
    for place, (id_, vector, payload, sequence) in enumerate(rows):
        yield Record(id_, np.asarray(vector), payload_of(payload, place), sequence)


def _bytes(text: str) -> Array:
    return np.frombuffer(text.encode(), np.uint8)


def _joined(texts: Sequence[str]) -> tuple[Array, Array]:
    parts = [text.encode() for text in texts]
    ends = np.cumsum([0, *map(len, parts)], dtype=np.int64)
    return np.frombuffer(b"".join(parts), np.uint8), ends


def _texts(data: Array, offsets: Array, count: int) -> Iterator[str]:
    """Cut UTF-8 at offsets, which must lie within it in ascending order."""
    is_whole = offsets.dtype == np.int64 and offsets.shape == (count + 1,)
    is_whole = is_whole and data.dtype == np.uint8 and data.ndim == 1
    if is_whole:
        ends = offsets.astype(np.int64)
        is_whole = ends[0] == 0 and ends[-1] == len(data) and bool((np.diff(ends) >= 0).all())
    if not is_whole:
        raise InvalidInput(f"expected the texts of {count} records and their offsets")
    whole, places = data.tobytes(), offsets.tolist()
    try:
        for start, end in pairwise(places):
            yield whole[start:end].decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"expected texts in UTF-8, got {error}") from error
