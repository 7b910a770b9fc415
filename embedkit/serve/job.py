"""What stands in the batcher's line: jobs, the slices cut from them, and batches of slices.

Named tuples where there is one per call: a frozen dataclass takes five times as long to make.
"""

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

__all__ = ["Batch", "Job", "Part", "Slice"]

P = TypeVar("P")
R = TypeVar("R")


class Part(NamedTuple, Generic[R]):
    """Answer for images ``start:stop`` of a job: rows ``row:`` of a result, or an error."""

    start: int
    stop: int
    result: R | None
    row: int
    error: Exception | None = None


class Job(Generic[P, R]):
    """One request in line: its images, and its answers as they come in.

    Attributes:
        payload: What the owner gave with the request; dropped when the job is finished.
        count: Images of the request.
        bytes: Bytes of its pixels.
        deadline: Time after which it must not run, on the batcher's clock, or None.
        arrived: When it was offered.
        started: When its first image was taken, or None.
        ended: When it was finished, or None.
        parts: Answers in image order.
        largest_batch: Size of the largest batch that any of its images ran in.
        error: Why the whole job failed: expired, cancelled; or None.
    """

    __slots__ = (
        "_on_finish",
        "answered",
        "arrived",
        "bytes",
        "count",
        "deadline",
        "ended",
        "error",
        "largest_batch",
        "parts",
        "payload",
        "started",
        "taken",
    )

    def __init__(
        self,
        payload: P,
        count: int,
        size_bytes: int,
        deadline: float | None,
        arrived: float,
        on_finish: "Callable[[Job[P, R]], None]",
    ) -> None:
        self.payload: P | None = payload
        self.count = count
        self.bytes = size_bytes
        self.deadline = deadline
        self.arrived = arrived
        self.started: float | None = None
        self.ended: float | None = None
        self.taken = 0
        self.answered = 0
        self.parts: list[Part[R]] = []
        self.largest_batch = 0
        self.error: Exception | None = None
        self._on_finish = on_finish

    @property
    def is_finished(self) -> bool:
        """Whether the answer, or the failure, is complete."""
        return self.ended is not None

    def finish(self, now: float, error: Exception | None = None) -> None:
        """Mark the job finished and tell its owner; only the batcher calls this."""
        self.ended = now
        self.error = error
        self.payload = None
        self._on_finish(self)


class Slice(NamedTuple, Generic[P, R]):
    """Images ``start:stop`` of one job, as part of a batch."""

    job: Job[P, R]
    payload: P
    start: int
    stop: int


class Batch(NamedTuple, Generic[P, R]):
    """Images that run together, in line order."""

    slices: tuple[Slice[P, R], ...]
    size: int

    def halves(self) -> "tuple[Batch[P, R], Batch[P, R]]":
        """Cut a batch of at least two images in the middle, through a request if need be."""
        middle, row = self.size // 2, 0
        left: list[Slice[P, R]] = []
        right: list[Slice[P, R]] = []
        for s in self.slices:
            cut = min(max(s.start, s.start + middle - row), s.stop)
            if cut > s.start:
                left.append(Slice(s.job, s.payload, s.start, cut))
            if cut < s.stop:
                right.append(Slice(s.job, s.payload, cut, s.stop))
            row += s.stop - s.start
        return Batch(tuple(left), middle), Batch(tuple(right), self.size - middle)
