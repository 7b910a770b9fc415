"""The vectors of an observation: which ones, of which dimension, in which order and parts."""

import hashlib
from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

from embedkit.detect.detector import Observation
from embedkit.errors import InvalidInput
from embedkit.types import Embeddings, Scores

__all__ = [
    "Float64",
    "Source",
    "content_order",
    "in_blocks",
    "keep",
    "largest",
    "queries",
    "rows_for",
    "vectors",
]

Source = Literal["embeddings", "features"]
Float64 = npt.NDArray[np.float64]

_BLOCK_BYTES = 64 << 20
_GROUP = 64


def vectors(observation: Observation, source: Source) -> Embeddings:
    """Return the (n, d) float32 vectors that a detector looks at.

    Raises:
        InvalidInput: If the observation has none, or a value is not finite.
    """
    found = observation.embeddings if source == "embeddings" else observation.features
    if found is None:
        raise InvalidInput(f"expected an observation with {source}, got none")
    values = np.asarray(found, dtype=np.float32)
    bad = int(np.count_nonzero(~np.isfinite(values).all(axis=1)))
    if bad:
        raise InvalidInput(f"expected finite {source}, got {bad} of {len(values)} that are not")
    return values


def queries(observation: Observation, source: Source, dim: int) -> Embeddings:
    """Return the (n, dim) float32 vectors to score.

    Raises:
        InvalidInput: If there are none, or they have another number of dimensions.
    """
    values = vectors(observation, source)
    if values.ndim != 2 or values.shape[1] != dim:
        raise InvalidInput(
            f"expected {source} of {dim} dimensions, got {values.shape[1]} dimensions"
        )
    return values


def rows_for(row_bytes: int) -> int:
    """Rows of a block whose largest array takes ``row_bytes`` each."""
    return max(1, _BLOCK_BYTES // max(1, row_bytes))


def in_blocks(
    score: Callable[..., Scores], *arrays: npt.NDArray[np.float32], row_bytes: int
) -> Scores:
    """Score rows in blocks, so that memory does not grow with their number.

    Args:
        score: From blocks of the arrays' rows to one score per row.
        arrays: With equally many rows.
        row_bytes: Memory that scoring one row takes.
    """
    step = rows_for(row_bytes)
    parts = [
        score(*(array[start : start + step] for array in arrays))
        for start in range(0, len(arrays[0]), step)
    ]
    return np.asarray(np.concatenate(parts), dtype=np.float64)


def largest(similarity: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.int64]:
    """Return the columns of the k largest values of each row, (n, k), best first.

    A row's columns are dealt into groups, and the k groups of the largest maxima hold the k
    largest values, so that few columns are compared with one another.

    Args:
        similarity: (n, m), m at least k.
        k: How many.
    """
    n, m = similarity.shape
    groups = m // _GROUP
    if groups < 2 * k:
        return _ranked(similarity, np.broadcast_to(np.arange(m), (n, m)), k)
    maxima = similarity[:, : groups * _GROUP].reshape(n, _GROUP, groups).max(axis=1)
    best = np.argpartition(maxima, groups - k, axis=1)[:, groups - k :]
    dealt = best[:, np.newaxis, :] + groups * np.arange(_GROUP)[:, np.newaxis]
    rest = np.broadcast_to(np.arange(groups * _GROUP, m), (n, m - groups * _GROUP))
    return _ranked(similarity, np.concatenate([dealt.reshape(n, -1), rest], axis=1), k)


def _ranked(
    similarity: npt.NDArray[np.float32], columns: npt.NDArray[np.int64], k: int
) -> npt.NDArray[np.int64]:
    """Of (n, c) columns those of the k largest values, best first."""
    values = np.take_along_axis(similarity, columns, axis=1)
    last = values.shape[1] - k
    part = np.argpartition(values, last, axis=1)[:, last:]
    found = np.take_along_axis(values, part, axis=1)
    order = np.take_along_axis(part, np.argsort(-found, axis=1, kind="stable"), axis=1)
    return np.asarray(np.take_along_axis(columns, order, axis=1))


def content_order(rows: Embeddings) -> npt.NDArray[np.int64]:
    """An order of the rows that depends on what they hold, not on where they stand.

    It is that of a hash of each row, hence pseudo-random.
    """
    digests = b"".join(hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in rows)
    return np.argsort(np.frombuffer(digests, dtype="<u8"), kind="stable")


def keep(rows: Embeddings, most: int) -> npt.NDArray[np.int64]:
    """Row numbers of a pseudo-random part that the order of the rows cannot change.

    Args:
        rows: (n, d); made contiguous by the caller's dtype alone.
        most: Rows to keep; 0 keeps all.
    """
    return content_order(np.ascontiguousarray(rows))[: most or len(rows)]
