"""Stream: images that are read and decoded in the background, shortly before their turn."""

import logging
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

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
_logger = logging.getLogger("embedkit.data")


class _Read(NamedTuple):
    """Images in the order in which they were asked for.

    Attributes:
        images: Blank where one could not be read.
        problems: Why not, or empty.
    """

    images: Images
    problems: list[str]


class Stream:
    """Stands where the tensor of all images stands: ``stream[indices]`` is those images.

    Batches that are expected are read by threads, as many as fit into the memory that is
    allowed, at least one; whether and when they were ready changes no pixel. In the place of an
    image that cannot be read stands the next one asked for together with it that can be (alone,
    it is black); which one that is depends on the files alone.

    Args:
        data: Where the images lie.
        spec: Size and channels they are brought to.
        device: Where they are wanted.
        megabytes: Of decoded images that may wait.
        rows: Which images of ``data`` these are; all by default.
        strict: Whether an image that cannot be read is an error.

    Attributes:
        shape: (n, h, w, c).
        device: Where they are wanted.
        unreadable: Positions in ``data`` of the images that could not be read so far.
    """

    def __init__(
        self,
        data: LazyDataset,
        spec: InputSpec,
        device: torch.device,
        *,
        megabytes: int,
        rows: torch.Tensor | None = None,
        strict: bool = False,
    ) -> None:
        self._data, self._spec, self._megabytes = data, spec, megabytes
        self._strict, self.unreadable = strict, set[int]()
        self._rows = torch.arange(len(data)) if rows is None else rows.cpu()
        self.device = device
        self.shape = (len(self._rows), spec.height, spec.width, spec.channels)
        self._pool = ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1), "embedkit-stream")
        self._waiting: dict[bytes, list[Future[_Read]]] = {}
        self._mended: tuple[bytes, Images] | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: torch.Tensor) -> torch.Tensor:
        """These images, (b, h, w, c) uint8 on the device.

        Raises:
            InvalidInput: If none of several can be read, or under ``strict`` if one cannot.
        """
        wanted = indices.cpu()
        if self._mended is not None and self._mended[0] == _key(wanted):
            return torch.from_numpy(self._mended[1]).to(self.device)
        images, _ = self._taken(wanted)
        return torch.from_numpy(images).to(self.device)

    def readable(self, indices: torch.Tensor) -> torch.Tensor:
        """The same images, with others in the place of those that cannot be read.

        Raises:
            InvalidInput: As for the images themselves.
        """
        wanted = indices.cpu()
        images, sources = self._taken(wanted)
        taken = wanted[sources]
        # Under its new indices the batch is not waiting, but it is asked for at once.
        self._mended = None if torch.equal(taken, wanted) else (_key(taken), images)
        return taken

    def part(self, rows: torch.Tensor) -> "Stream":
        """A stream of some of the images."""
        stream = Stream(
            self._data,
            self._spec,
            self.device,
            megabytes=self._megabytes,
            rows=self._rows[rows.cpu()],
            strict=self._strict,
        )
        stream.unreadable = self.unreadable
        return stream

    def room(self, batch_size: int) -> int:
        """How many batches may be read and wait, the one needed now included; at least 2."""
        each = max(1, batch_size * int(np.prod(self.shape[1:])))
        return max(2, self._megabytes * 2**20 // each)

    def expect(self, batches: Sequence[torch.Tensor]) -> None:
        """Read these batches, the first of them first, as far as memory allows.

        Args:
            batches: The one that is needed now, then the ones after it. What was expected
                before and is not among them is forgotten.
        """
        chosen = batches[: self.room(len(batches[0]))]
        keys = [_key(batch) for batch in chosen]
        for key in [key for key in self._waiting if key not in keys]:
            for part in self._waiting.pop(key):
                part.cancel()
        for key, batch in zip(keys, chosen, strict=True):
            if key not in self._waiting:
                self._waiting[key] = self._ask(batch)

    def _ask(self, indices: torch.Tensor) -> list[Future[_Read]]:
        rows = self._rows[indices.cpu()]
        return [self._pool.submit(self._read, chunk.tolist()) for chunk in rows.split(_CHUNK)]  # type: ignore[no-untyped-call]

    def _taken(self, wanted: torch.Tensor) -> tuple[Images, list[int]]:
        """These images, and which of the wanted ones stands at each place."""
        # It stays until other batches are expected: a step may ask for its images again.
        parts = [p.result() for p in self._waiting.get(_key(wanted)) or self._ask(wanted)]
        images = np.concatenate([part.images for part in parts])
        problems = [problem for part in parts for problem in part.problems]
        sources = list(range(len(problems)))
        if not any(problems):
            return images, sources
        rows = self._rows[wanted].tolist()
        self._note(zip(rows, problems, strict=True))
        good = [place for place in sources if not problems[place]]
        if not good and len(rows) > 1:
            raise InvalidInput(
                f"expected a readable image among {len(rows)} of {self._data.name}, got none "
                f"({self._data.ids[rows[0]]}: {problems[0]}); make them readable without "
                "changing their sizes and go on with --resume, or remove them and start anew "
                "with another --out"
            )
        for place in sources if good else ():
            if problems[place]:
                sources[place] = next((g for g in good if g > place), good[0])
        return images[sources], sources

    def _note(self, outcomes: Iterable[tuple[int, str]]) -> None:
        """Warn of what could not be read, once for each image; under ``strict``, stop."""
        for row, problem in outcomes:
            if not problem or row in self.unreadable:
                continue
            name, file = self._data.name, self._data.ids[row]
            if self._strict:
                raise InvalidInput(
                    f"expected a readable image in {file} of {name}, got {problem}; make it "
                    "readable without changing its size and go on with --resume; or start "
                    "anew with another --out, without the file or with data.strict=false, "
                    "where another image of the batch takes its place"
                )
            self.unreadable.add(row)
            _logger.warning(
                "%s: another image of the batch takes the place of %s (%s)", name, file, problem
            )

    def _read(self, rows: list[int]) -> _Read:
        blank = np.zeros((1, *self.shape[1:]), np.uint8)
        images, problems = [], []
        for row in rows:
            try:
                found = self._data.read(row)
                each = (found,) if isinstance(found, bytes) else found
                images.append(prepare(each, self._spec))
                problems.append("")
            except (BadImage, OSError) as error:
                images.append(blank)
                problems.append(str(error) or type(error).__name__)
        return _Read(np.concatenate(images), problems)


def _key(indices: torch.Tensor) -> bytes:
    return indices.cpu().numpy().tobytes()
