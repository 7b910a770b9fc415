"""What stands in the batcher's line: jobs, the slices cut from them, and batches of slices.

Named tuples where there is one per call: a frozen dataclass takes five times as long to make.
"""

from collections import deque
from collections.abc import Callable
from enum import IntEnum
from typing import Generic, NamedTuple, TypeVar

__all__ = ["Batch", "Job", "Lane", "Part", "Priority", "Slice"]

P = TypeVar("P")
R = TypeVar("R")

# Fewer finished jobs than this are not worth a tidying.
_MANY_GONE = 64


class Priority(IntEnum):
    """Which of the two lanes of the line a request stands in."""

    INTERACTIVE = 0
    BULK = 1


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
        priority: The lane it stands in.
        arrived: When it was offered.
        taken: Images that are in batches already.
        answered: Images that came back.
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
        "priority",
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
        priority: Priority = Priority.INTERACTIVE,
    ) -> None:
        self.payload: P | None = payload
        self.count = count
        self.bytes = size_bytes
        self.deadline = deadline
        self.priority = priority
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
        # What is called knows the call, and the call knows this job: a cycle, if it were kept.
        on_finish, self._on_finish = self._on_finish, _forgotten
        on_finish(self)


def _forgotten(_: object) -> None:
    """Stands where a finished job had somebody to tell."""


class Slice(NamedTuple, Generic[P, R]):
    """Images ``start:stop`` of one job, as part of a batch."""

    job: Job[P, R]
    payload: P
    start: int
    stop: int


class Lane(Generic[P, R]):
    """The waiting jobs of one priority, in the order of their arrival.

    A job that is cancelled stays in the row until its turn comes or such jobs are the majority;
    taking it out at once would cost every other job more.

    Attributes:
        images: Images that wait.
        bytes: Bytes of their pixels; a job that was split counts in proportion.
    """

    __slots__ = ("_gone", "_jobs", "bytes", "images")

    def __init__(self) -> None:
        self.images = 0
        self.bytes = 0
        self._jobs: deque[Job[P, R]] = deque()
        self._gone = 0

    def first(self) -> Job[P, R]:
        """The job whose turn is next; there must be one."""
        while self._jobs[0].ended is not None:
            self._jobs.popleft()
            self._gone -= 1
        return self._jobs[0]

    def add(self, job: Job[P, R]) -> None:
        """Put a job at the end."""
        self._jobs.append(job)
        self.images += job.count
        self.bytes += job.bytes

    def leave(self, job: Job[P, R]) -> None:
        """Forget the images of a job that still stands here; its owner finishes it."""
        self.images -= job.count - job.taken
        self.bytes -= job.bytes - job.bytes * job.taken // job.count
        self._gone += 1
        if self._gone > _MANY_GONE and 2 * self._gone > len(self._jobs):
            kept = [other for other in self._jobs if other.ended is None and other is not job]
            self._jobs = deque(kept)
            self._gone = 0

    def cut(
        self,
        room: int,
        now: float,
        slices: list[Slice[P, R]],
        expired: list[Job[P, R]],
    ) -> int:
        """Cut up to ``room`` images off the jobs in front; returns how many.

        Args:
            room: Images wanted.
            now: Time on the batcher's clock.
            slices: The images are added here.
            expired: Jobs whose deadline has passed are added here; they have left the lane, and
                the owner finishes them.
        """
        jobs, left = self._jobs, room
        while left and jobs:
            job = jobs[0]
            payload = job.payload
            if payload is None:  # finished while it stood here
                jobs.popleft()
                self._gone -= 1
                continue
            start, count = job.taken, job.count
            if job.deadline is not None and job.deadline <= now:
                jobs.popleft()
                self.images -= count - start
                self.bytes -= job.bytes - job.bytes * start // count
                job.taken = count
                expired.append(job)
                continue
            if job.started is None:
                job.started = now
            width = count - start
            if width <= left:
                jobs.popleft()
            else:
                width = left
            stop = job.taken = start + width
            # Both ends are rounded in the same way, so that the pieces add up to the whole.
            self.bytes -= job.bytes * stop // count - job.bytes * start // count
            self.images -= width
            left -= width
            slices.append(Slice(job, payload, start, stop))
        return room - left


class Batch(NamedTuple, Generic[P, R]):
    """Images that run together, in line order.

    Attributes:
        slices: The images, job by job.
        size: How many there are.
        is_alone: Whether it is one that went before the line.
    """

    slices: tuple[Slice[P, R], ...]
    size: int
    is_alone: bool = False

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
