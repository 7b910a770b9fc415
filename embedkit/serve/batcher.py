"""The batch rule: which waiting images run together, and when.

Pure Python over an injected clock; it knows neither threads, gRPC nor ONNX, so that it can be
tested to the last branch. The rule: requests stand in one line. Whenever the engine is free,
the batch is whatever is first in line, up to ``max_batch_size`` images; small requests are
merged and large ones split, and the order is never changed. With a window, a batch that is not
full waits until the window has passed since its *first* request arrived.

The batcher is not thread-safe; its owner holds a lock around every call.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from embedkit.errors import (
    Cancelled,
    DeadlineExceeded,
    InvalidInput,
    MessageTooLarge,
    QueueFull,
)
from embedkit.serve.job import Batch, Job, Part, Slice

__all__ = ["BatchLimits", "Batcher"]

P = TypeVar("P")
R = TypeVar("R")


@dataclass(frozen=True)
class BatchLimits:
    """Sizes that bound the line and each batch.

    Attributes:
        max_batch_size: Images per batch, at least 1.
        max_queue_images: Images that may wait, at least ``max_batch_size``.
        max_queue_bytes: Bytes of pixels that may wait.
        window_s: Seconds a batch that is not full waits for more, from its first request; 0
            runs whatever is there.
    """

    max_batch_size: int = 64
    max_queue_images: int = 4096
    max_queue_bytes: int = 256 << 20
    window_s: float = 0.0

    def __post_init__(self) -> None:
        """Check the sizes against each other.

        Raises:
            InvalidInput: If a limit could never be met.
        """
        if not 1 <= self.max_batch_size <= self.max_queue_images:
            raise InvalidInput(
                "expected 1 <= max_batch_size <= max_queue_images, "
                f"got {self.max_batch_size} and {self.max_queue_images}"
            )
        if self.max_queue_bytes < 1 or self.window_s < 0:
            raise InvalidInput(
                "expected max_queue_bytes >= 1 and window_s >= 0, "
                f"got {self.max_queue_bytes} and {self.window_s}"
            )


class Batcher(Generic[P, R]):
    """The line of waiting requests and the rule that forms batches from it.

    Args:
        limits: Sizes of the line and of a batch.
        clock: Returns seconds, never going back.
    """

    def __init__(
        self, limits: BatchLimits, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.limits = limits
        self._clock = clock
        self._line: OrderedDict[Job[P, R], None] = OrderedDict()
        self._images = 0
        self._bytes = 0.0

    @property
    def queued_images(self) -> int:
        """Images that wait and have not been taken."""
        return self._images

    @property
    def queued_bytes(self) -> int:
        """Bytes of pixels that wait; a request that was split counts in proportion."""
        return round(self._bytes)

    def check(self, count: int, size_bytes: int) -> None:
        """Refuse a request that would not fit, before work is spent on it.

        Raises:
            InvalidInput: If ``count`` is not positive.
            MessageTooLarge: If it would not fit even into an empty line.
            QueueFull: If it does not fit now.
        """
        limits = self.limits
        if count < 1:
            raise InvalidInput(f"expected at least one image, got {count}")
        if count > limits.max_queue_images or size_bytes > limits.max_queue_bytes:
            raise MessageTooLarge(
                f"expected at most {limits.max_queue_images} images and "
                f"{limits.max_queue_bytes} bytes of pixels in one request, got {count} and "
                f"{size_bytes}; send several requests"
            )
        if self._images + count > limits.max_queue_images:
            raise QueueFull(
                f"expected room for {count} images, got {self._images} of "
                f"{limits.max_queue_images} waiting; retry later"
            )
        if self._bytes + size_bytes > limits.max_queue_bytes:
            raise QueueFull(
                f"expected room for {size_bytes} bytes, got {self.queued_bytes} of "
                f"{limits.max_queue_bytes} waiting; retry later"
            )

    def offer(
        self,
        payload: P,
        count: int,
        size_bytes: int,
        *,
        deadline: float | None = None,
        on_finish: Callable[[Job[P, R]], None],
    ) -> Job[P, R]:
        """Put a request at the end of the line.

        Args:
            payload: Handed back in the slices of the batches.
            count: Images in it, at least 1.
            size_bytes: Bytes of its pixels.
            deadline: Time on the batcher's clock after which it must not run.
            on_finish: Called exactly once, when the job is answered, expired or cancelled.

        Raises:
            InvalidInput, MessageTooLarge, QueueFull: As ``check``.
            DeadlineExceeded: If the deadline has passed already.
        """
        self.check(count, size_bytes)
        now = self._clock()
        if deadline is not None and deadline <= now:
            raise DeadlineExceeded("expected time left on arrival, got an expired deadline")
        job: Job[P, R] = Job(payload, count, size_bytes, deadline, now, on_finish)
        self._line[job] = None
        self._images += count
        self._bytes += size_bytes
        return job

    def cancel(self, job: Job[P, R], error: Exception | None = None) -> bool:
        """Withdraw a job: what has not been taken never runs. False if it was finished already.

        Args:
            job: A job of this batcher.
            error: Recorded as the job's failure; ``Cancelled`` by default.
        """
        if job.is_finished:
            return False
        self._leave(job)
        job.finish(self._clock(), error or Cancelled("the call was cancelled while queued"))
        return True

    def ready_in(self) -> float | None:
        """Seconds until ``take`` gives a batch: 0 for now, None while nothing waits."""
        if not self._line:
            return None
        if self._images >= self.limits.max_batch_size:
            return 0.0
        first = next(iter(self._line))
        return max(0.0, first.arrived + self.limits.window_s - self._clock())

    def take(self) -> Batch[P, R] | None:
        """Form the next batch, or None if none is due; drops expired requests on the way."""
        if self.ready_in() != 0.0:
            return None
        now, size, slices = self._clock(), 0, []
        while self._line and size < self.limits.max_batch_size:
            job = next(iter(self._line))
            if job.deadline is not None and job.deadline <= now:
                self.cancel(job, DeadlineExceeded("the deadline passed while queued"))
                continue
            slices.append(self._take_from(job, self.limits.max_batch_size - size, now))
            size += slices[-1].stop - slices[-1].start
        return Batch(tuple(slices), size) if slices else None

    def settle(
        self, batch: Batch[P, R], result: R | None = None, error: Exception | None = None
    ) -> None:
        """Hand the rows of a batch's result, or its failure, to the jobs it was made of.

        Args:
            batch: A batch from ``take``, or a piece of one; every image exactly once.
            result: Something with one row per image of the batch, in order.
            error: Why the batch has no result.
        """
        now, row = self._clock(), 0
        for s in batch.slices:
            job, width = s.job, s.stop - s.start
            if not job.is_finished:
                job.parts.append(Part(s.start, s.stop, result, row, error))
                job.largest_batch = max(job.largest_batch, batch.size)
                job.answered += width
                if job.answered == job.count:
                    job.parts.sort(key=lambda part: part.start)
                    job.finish(now)
            row += width

    def _take_from(self, job: Job[P, R], room: int, now: float) -> Slice[P, R]:
        """Cut the next images off a job; it leaves the line with its last one."""
        start, payload = job.taken, job.payload
        stop = min(job.count, start + room)
        if payload is None:
            raise AssertionError("a finished job stood in line")
        if job.started is None:
            job.started = now
        if stop == job.count:
            self._leave(job)
        else:
            self._images -= stop - start
            self._bytes -= job.bytes * (stop - start) / job.count
        job.taken = stop
        return Slice(job, payload, start, stop)

    def _leave(self, job: Job[P, R]) -> None:
        """Take a job out of the line, with the images it still has there."""
        if job not in self._line:
            return
        del self._line[job]
        waiting = job.count - job.taken
        self._images -= waiting
        self._bytes -= job.bytes * waiting / job.count
        if not self._line:
            self._bytes = 0.0
