"""Stream: images that are read and decoded in the background, shortly before their turn."""

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from embedkit.errors import BadImage, InvalidInput
from embedkit.preprocess import InputSpec, prepare
from embedkit.train.images.lazy import LazyDataset
from embedkit.types import Images

__all__ = ["Stream"]

_THREADS = 4
_CHUNK = 16
"""Images that a thread takes at a time."""


class Stream:
    """Stands where the tensor of all images stands: ``stream[indices]`` is those images.

    Batches that are expected are read by threads, as many as fit into the memory that is
    allowed, at least one; whether and when they were ready changes no pixel.

    Args:
        data: Where the images lie.
        spec: Size and channels they are brought to.
        device: Where they are wanted.
        megabytes: Of decoded images that may wait.
        rows: Which images of ``data`` these are; all by default.

    Attributes:
        shape: (n, h, w, c).
        device: Where they are wanted.
    """

    def __init__(
        self,
        data: LazyDataset,
        spec: InputSpec,
        device: torch.device,
        *,
        megabytes: int,
        rows: torch.Tensor | None = None,
    ) -> None:
        self._data, self._spec, self._megabytes = data, spec, megabytes
        self._rows = torch.arange(len(data)) if rows is None else rows.cpu()
        self.device = device
        self.shape = (len(self._rows), spec.height, spec.width, spec.channels)
        self._pool = ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1), "embedkit-stream")
        self._waiting: dict[bytes, list[Future[Images]]] = {}

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: torch.Tensor) -> torch.Tensor:
        """These images, (b, h, w, c) uint8 on the device.

        Raises:
            InvalidInput: If one cannot be read; names it.
        """
        wanted = indices.cpu()
        # It stays until other batches are expected: a step may ask for its images again.
        parts = self._waiting.get(_key(wanted)) or self._ask(wanted)
        images = np.concatenate([part.result() for part in parts])
        return torch.from_numpy(images).to(self.device)

    def part(self, rows: torch.Tensor) -> "Stream":
        """A stream of some of the images."""
        chosen = self._rows[rows.cpu()]
        megabytes = self._megabytes
        return Stream(self._data, self._spec, self.device, megabytes=megabytes, rows=chosen)

    def expect(self, batches: Sequence[torch.Tensor]) -> None:
        """Read these batches, the first of them first, as far as memory allows.

        Args:
            batches: The one that is needed now, then the ones after it. What was expected
                before and is not among them is forgotten.
        """
        each = max(1, len(batches[0]) * int(np.prod(self.shape[1:])))
        chosen = batches[: max(2, self._megabytes * 2**20 // each)]
        keys = [_key(batch) for batch in chosen]
        for key in [key for key in self._waiting if key not in keys]:
            for part in self._waiting.pop(key):
                part.cancel()
        for key, batch in zip(keys, chosen, strict=True):
            if key not in self._waiting:
                self._waiting[key] = self._ask(batch)

    def _ask(self, indices: torch.Tensor) -> list[Future[Images]]:
        rows = self._rows[indices.cpu()]
        return [self._pool.submit(self._read, chunk.tolist()) for chunk in rows.split(_CHUNK)]  # type: ignore[no-untyped-call]

    def _read(self, rows: list[int]) -> Images:
        return np.concatenate([self._one(row) for row in rows])

    def _one(self, row: int) -> Images:
        try:
            found = self._data.read(row)
            return prepare((found,) if isinstance(found, bytes) else found, self._spec)
        except (BadImage, OSError) as error:
            raise InvalidInput(
                f"expected a readable image in {self._data.ids[row]} of {self._data.name}, got "
                f"{error}; remove it, or set data.stream=false, which leaves such files out"
            ) from error


def _key(indices: torch.Tensor) -> bytes:
    return indices.cpu().numpy().tobytes()
