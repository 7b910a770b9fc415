"""Each image is embedded once per model: results are kept in memory and on disk.

A key is the model, how it was reached and by which code, the data and the output asked for: a
cached array is used by every task of a run, and by the next run in which all are the same.
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from embedkit.errors import InvalidInput
from embedkit.preprocess import InputSpec, prepare
from embedkit.types import Embeddings, EncodedImages, Images

__all__ = ["FeatureCache", "Output", "RawPixels"]

Output = Literal["embedding", "features"]

_RAW_PX = 32


class FeatureCache:
    """Embeddings by (model, data digest, output).

    Args:
        folder: Where arrays are kept between runs; None keeps them in memory only.

    Attributes:
        from_disk: What an earlier run asked the model, and this one did not, by its label.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = None if folder is None else Path(folder)
        self.from_disk: list[str] = []
        self._memory: dict[str, Embeddings] = {}

    def get(
        self,
        model: str,
        data: str,
        output: Output,
        n: int,
        compute: Callable[[], Embeddings],
        *,
        on_disk: bool = True,
        label: str = "",
    ) -> Embeddings:
        """Return the cached (n, d) array, computing and storing it if needed.

        Args:
            model: Digest of the model, how it was reached and by which code.
            data: Digest of the data set, which fixes the order of its images.
            output: Which of the model's outputs.
            n: Rows that the array must have.
            compute: Called at most once.
            on_disk: Whether it is worth keeping for the next run.
            label: What ``from_disk`` calls it.

        Raises:
            InvalidInput: If ``compute`` gives other than n rows, or values that are not finite.
        """
        key = hashlib.sha256("\n".join((model, data, output)).encode()).hexdigest()
        found = self._memory.get(key)
        if found is None:
            found = self._load(key, n)
            if found is not None and label not in self.from_disk:
                self.from_disk.append(label)
        if found is None:
            found = _checked(compute(), n)
            if on_disk:
                self._save(key, found)
        self._memory[key] = found
        return found

    def _load(self, key: str, n: int) -> Embeddings | None:
        """Return a stored array; anything unreadable or of another length is not there."""
        if self.folder is None:
            return None
        try:
            stored = np.load(self.folder / f"{key}.npy", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        whole = stored.ndim == 2 and len(stored) == n and stored.dtype == np.float32
        return _frozen(stored) if whole else None

    def _save(self, key: str, embeddings: Embeddings) -> None:
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f".{key}.{os.getpid()}.npy"
        np.save(part, embeddings, allow_pickle=False)
        part.replace(self.folder / f"{key}.npy")


class RawPixels:
    """The baseline without any learning: pixels as a vector of unit length.

    The pixels are those that the model sees; above 32 px the images are shrunk to 32 px, which
    loses a nearest-neighbour search little and keeps the vectors small.

    Args:
        spec: The model's input.
    """

    def __init__(self, spec: InputSpec) -> None:
        shrink = max(spec.height, spec.width, _RAW_PX) / _RAW_PX
        height, width = max(1, round(spec.height / shrink)), max(1, round(spec.width / shrink))
        self.spec = replace(spec, height=height, width=width)
        self.dim = height * width * spec.channels
        block = json.dumps(self.spec.to_dict(), sort_keys=True).encode()
        self.digest = "raw_pixels:" + hashlib.sha256(block).hexdigest()

    def embed(self, images: Images | EncodedImages) -> Embeddings:
        """Return (n, h * w * c) unit vectors; a black image stays zero."""
        pixels = prepare(images, self.spec)
        flat = pixels.reshape(len(pixels), -1).astype(np.float32)
        norms = np.linalg.norm(flat, axis=1, keepdims=True)
        return np.asarray(flat / np.where(norms > 0, norms, 1), dtype=np.float32)


def _checked(embeddings: Embeddings, n: int) -> Embeddings:
    if embeddings.ndim != 2 or len(embeddings) != n:
        raise InvalidInput(
            f"expected one embedding for each of {n} images, got an array {embeddings.shape}"
        )
    bad = int(np.count_nonzero(~np.isfinite(embeddings).all(axis=1)))
    if bad:
        raise InvalidInput(f"expected finite embeddings, got {bad} of {n} with NaN or infinity")
    return _frozen(np.ascontiguousarray(embeddings, dtype=np.float32))


def _frozen(embeddings: Embeddings) -> Embeddings:
    """Shared between tasks, so nobody may write into it."""
    embeddings.setflags(write=False)
    return embeddings
