"""How vectors are written to disk: whole, in half precision, or as bytes with a scale."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedkit.types import Embeddings

__all__ = ["Storage"]

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

    def written(self, vectors: Embeddings) -> bytes:
        """The rows (n, d) float32 as bytes, one behind the other."""
        if self.name == "float32":
            return np.ascontiguousarray(vectors, "<f4").tobytes()
        if self.name == "float16":
            with np.errstate(over="ignore"):
                return vectors.astype("<f2").tobytes()
        scale = np.abs(vectors).max(axis=1, keepdims=True) / np.float32(127)
        rows = np.empty((len(vectors), self.width), np.uint8)
        rows[:, :_SCALE_BYTES] = scale.astype("<f4").view(np.uint8)
        scale[scale == 0] = 1
        steps = np.clip(np.rint(vectors / scale), -127, 127)
        rows[:, _SCALE_BYTES:] = steps.astype(np.int8).view(np.uint8)
        return rows.tobytes()

    def read(self, data: bytes | Sequence[bytes]) -> Embeddings:
        """What rows stand for, (n, d) float32.

        Args:
            data: Rows of ``width`` bytes each, joined or one by one.

        Raises:
            ValueError: If a row has another size.
        """
        if not isinstance(data, bytes):
            if any(len(row) != self.width for row in data):
                raise ValueError(f"expected rows of {self.width} bytes, got others")
            data = b"".join(data)
        if self.name == "int8":
            rows = np.frombuffer(data, np.uint8).reshape(-1, self.width)
            scale = np.ascontiguousarray(rows[:, :_SCALE_BYTES]).view("<f4")
            return np.asarray(rows[:, _SCALE_BYTES:].view(np.int8) * scale, np.float32)
        kind = "<f2" if self.name == "float16" else "<f4"
        return np.frombuffer(data, kind).reshape(-1, self.dim).astype(np.float32, copy=False)

    def rounded(self, vectors: Embeddings) -> Embeddings:
        """Vectors as they will be read again."""
        return vectors if self.name == "float32" else self.read(self.written(vectors))
