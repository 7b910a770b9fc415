"""How vectors are stored, on disk and in memory: whole, halved, or as bytes with a scale."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedkit.types import Embeddings

__all__ = ["Storage", "Stored"]

Stored = npt.NDArray[Any]
"""Vectors as stored: float32 or float16 (n, d), or uint8 (n, 4 + d), each a scale and bytes."""

# The value of an int8 row is scale * byte; the scale comes first.
_SCALE_BYTES = 4


@dataclass(frozen=True)
class Storage:
    """Writes and reads rows of one collection.

    Attributes:
        name: ``float32`` (bit for bit), ``float16`` or ``int8`` (a scale per vector).
        dim: Dimensions.

    Example:
        >>> import numpy as np
        >>> Storage("int8", 2).rounded(np.array([[1.0, 0.25]], np.float32)).round(3).tolist()
        [[1.0, 0.25200000405311584]]
    """

    name: str
    dim: int

    @property
    def width(self) -> int:
        """Bytes of one row."""
        if self.name == "int8":
            return _SCALE_BYTES + self.dim
        return self.dim * (2 if self.name == "float16" else 4)

    def empty(self, count: int) -> Stored:
        """Room for ``count`` rows; unused pages take no memory."""
        if self.name == "int8":
            return np.empty((count, self.width), np.uint8)
        return np.empty((count, self.dim), "<f2" if self.name == "float16" else "<f4")

    def encoded(self, vectors: Embeddings) -> Stored:
        """The rows (n, d) float32 as they are stored."""
        if self.name == "float32":
            return np.ascontiguousarray(vectors, "<f4")
        if self.name == "float16":
            with np.errstate(over="ignore"):
                return vectors.astype("<f2")
        scale = np.abs(vectors).max(axis=1, keepdims=True) / np.float32(127)
        rows = self.empty(len(vectors))
        rows[:, :_SCALE_BYTES] = scale.astype("<f4").view(np.uint8)
        scale[scale == 0] = 1
        steps = np.clip(np.rint(vectors / scale), -127, 127)
        rows[:, _SCALE_BYTES:] = steps.astype(np.int8).view(np.uint8)
        return rows

    def decoded(self, rows: Stored) -> Embeddings:
        """What stored rows stand for, (n, d) float32."""
        if self.name == "int8":
            scale = np.ascontiguousarray(rows[:, :_SCALE_BYTES]).view("<f4")
            return np.asarray(rows[:, _SCALE_BYTES:].view(np.int8) * scale, np.float32)
        return rows.astype(np.float32, copy=False)

    def directions(self, rows: Stored) -> Embeddings:
        """Vectors (n, d) float32 that point where float16 or int8 rows do, made fast."""
        if self.name == "int8":
            return rows[:, _SCALE_BYTES:].view(np.int8).astype(np.float32)
        return _widened(rows)

    def written(self, vectors: Embeddings) -> bytes:
        """The rows (n, d) float32 as bytes, one behind the other."""
        return self.encoded(vectors).tobytes()

    def read(self, data: bytes | Sequence[bytes]) -> Embeddings:
        """What rows stand for, (n, d) float32; see ``stored``."""
        return self.decoded(self.stored(data))

    def stored(self, data: bytes | Sequence[bytes]) -> Stored:
        """Rows that were written.

        Args:
            data: Rows of ``width`` bytes each, joined or one by one.

        Raises:
            ValueError: If a row has another size.
        """
        if not isinstance(data, bytes):
            if any(len(row) != self.width for row in data):
                raise ValueError(f"expected rows of {self.width} bytes, got others")
            data = b"".join(data)
        room = self.empty(0)
        return np.frombuffer(data, room.dtype).reshape(-1, room.shape[1])

    def rounded(self, vectors: Embeddings) -> Embeddings:
        """Vectors as they will be read again."""
        return vectors if self.name == "float32" else self.decoded(self.encoded(vectors))


def _widened(halves: Stored) -> Embeddings:
    """Finite float16 as float32, exactly, three times as fast as numpy converts them.

    The bits of a half, moved to where float32 has them, are the number over 2**112: the
    difference of the two exponent biases. Numbers below the least normal one too.
    """
    bits = halves.view(np.int16).astype(np.int32)
    np.left_shift(bits, 13, out=bits)
    np.bitwise_and(bits, np.int32(-0x70002000), out=bits)
    whole: Embeddings = bits.view(np.float32)
    whole *= np.float32(2.0**112)
    return whole
