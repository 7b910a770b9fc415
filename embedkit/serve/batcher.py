"""The batch rule: which waiting images run together, and when.

Pure Python over an injected clock; it knows neither threads, gRPC nor ONNX, so that it can be
tested to the last branch. The rule: requests stand in two lanes, interactive and bulk. Whenever
the engine is free, the batch is whatever is first in line, up to ``max_batch_size`` images;
small requests are merged and large ones split, and the order within a lane is never changed.
While both lanes wait, bulk gets its share of the images and interactive the rest; what one of
them leaves, the other gets. With a window, a batch that is not full waits until the window has
passed since its *first* request arrived.

The batcher is not thread-safe; its owner holds a lock around every call.
"""

import time
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
from embedkit.serve.job import Batch, Job, Lane, Part, Priority, Slice

__all__ = ["BatchLimits", "Batcher"]

P = TypeVar("P")
R = TypeVar("R")

# A deadline is called hopeless only if the work takes longer than this times the time left: the
# estimate may be a little high, and some of those in front may go away.
_MARGIN = 1.25
# Shares add up to whole images in spite of binary fractions.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class BatchLimits:
    """Sizes that bound the line and each batch.

    Attributes:
        max_batch_size: Images per batch, at least 1.
        max_queue_images: Images that may wait, at least ``max_batch_size``.
        max_queue_bytes: Bytes of pixels that may wait.
        window_s: Seconds a batch that is not full waits for more, from its first request; 0
            runs whatever is there.
        bulk_share: Fraction of the images, in (0, 1), that bulk gets while both lanes wait.
        bulk_room: Fraction of the line, in (0, 1], that bulk may fill, so that a bulk load does
            not shut interactive requests out.
    """

    max_batch_size: int = 64
    max_queue_images: int = 4096
    max_queue_bytes: int = 256 << 20
    window_s: float = 0.0
    bulk_share: float = 0.2
    bulk_room: float = 0.75

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
        if not (0 < self.bulk_share < 1 and 0 < self.bulk_room <= 1):
            raise InvalidInput(
                "expected bulk_share in (0, 1) and bulk_room in (0, 1], "
                f"got {self.bulk_share} and {self.bulk_room}"
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
        self._interactive: Lane[P, R] = Lane()
        self._bulk: Lane[P, R] = Lane()
        self._alone: list[Job[P, R]] = []
        # Images that bulk may still claim of what ran while both lanes waited.
        self._claim = 0.0

    @property
    def queued_images(self) -> int:
        """Images that wait and have not been taken."""
        return self._interactive.images + self._bulk.images

    @property
    def queued_bytes(self) -> int:
        """Bytes of pixels that wait; a request that was split counts in proportion."""
        return self._interactive.bytes + self._bulk.bytes

    def check(
        self,
        count: int,
        size_bytes: int,
        *,
        priority: Priority = Priority.INTERACTIVE,
        deadline: float | None = None,
        image_s: float = 0.0,
    ) -> None:
        """Refuse a request that would not fit or not be done in time; arguments as ``offer``.

        Raises:
            InvalidInput: If ``count`` is not positive.
            MessageTooLarge: If it would not fit even into an empty line.
            QueueFull: If it does not fit now.
            DeadlineExceeded: If the deadline has passed, or cannot be met any more.
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
        self._check_room(count, size_bytes, self.queued_images, self.queued_bytes, 1.0)
        if priority is Priority.BULK and self._bulk.images:
            lane = self._bulk
            self._check_room(count, size_bytes, lane.images, lane.bytes, limits.bulk_room)
        if deadline is not None:
            self._check_time(count, priority, deadline - self._clock(), image_s)

    def offer(
        self,
        payload: P,
        count: int,
        size_bytes: int,
        *,
        priority: Priority = Priority.INTERACTIVE,
        deadline: float | None = None,
        image_s: float = 0.0,
        on_finish: Callable[[Job[P, R]], None],
    ) -> Job[P, R]:
        """Put a request at the end of its lane.

        Args:
            payload: Handed back in the slices of the batches.
            count: Images in it, at least 1.
            size_bytes: Bytes of its pixels.
            priority: The lane.
            deadline: Time on the batcher's clock after which it must not run.
            image_s: Seconds that the engine takes per image in full batches, rather too low
                than too high; 0 if that is not known.
            on_finish: Called exactly once, when the job is answered, expired or cancelled.

        Raises:
            InvalidInput, MessageTooLarge, QueueFull, DeadlineExceeded: As ``check``.
        """
        limits, interactive, bulk = self.limits, self._interactive, self._bulk
        now, images = self._clock(), interactive.images + bulk.images + count
        # One glance tells for most requests that they fit; this is paid on every call.
        if (
            priority
            or count < 1
            or images > limits.max_queue_images
            or interactive.bytes + bulk.bytes + size_bytes > limits.max_queue_bytes
            or (deadline is not None and images * image_s >= deadline - now)
        ):
            self.check(count, size_bytes, priority=priority, deadline=deadline, image_s=image_s)
        job: Job[P, R] = Job(payload, count, size_bytes, deadline, now, on_finish, priority)
        (bulk if priority else interactive).add(job)
        return job

    def offer_alone(
        self,
        payload: P,
        *,
        deadline: float | None = None,
        on_finish: Callable[[Job[P, R]], None],
    ) -> Job[P, R]:
        """Have one image run next, in a batch of its own, whether there is room or not.

        For the question whether the engine works at all: neither a long line nor a bad image
        beside it is an answer to that.
        """
        job: Job[P, R] = Job(payload, 1, 0, deadline, self._clock(), on_finish)
        self._alone.append(job)
        return job

    def cancel(self, job: Job[P, R], error: Exception | None = None) -> bool:
        """Withdraw a job: what has not been taken never runs. False if it was finished already.

        Args:
            job: A job of this batcher.
            error: Recorded as the job's failure; ``Cancelled`` by default.
        """
        if job.is_finished:
            return False
        if job in self._alone:
            self._alone.remove(job)
        elif job.taken < job.count:
            (self._bulk if job.priority else self._interactive).leave(job)
        job.finish(self._clock(), error or Cancelled("the call was cancelled while queued"))
        return True

    def cancel_all(self, error: Exception) -> None:
        """Withdraw every job that stands in line, with ``error`` as its failure."""
        for job in [*self._alone]:
            self.cancel(job, error)
        for lane in (self._interactive, self._bulk):
            while lane.images:
                self.cancel(lane.first(), error)

    def ready_in(self) -> float | None:
        """Seconds until ``take`` gives a batch: 0 for now, None while nothing waits."""
        if self._alone:
            return 0.0
        interactive, bulk = self._interactive, self._bulk
        images = interactive.images + bulk.images
        if not images:
            return None
        window_s = self.limits.window_s
        if not window_s or images >= self.limits.max_batch_size:
            return 0.0
        first = min(lane.first().arrived for lane in (interactive, bulk) if lane.images)
        return max(0.0, first + window_s - self._clock())

    def take(self) -> Batch[P, R] | None:
        """Form the next batch, or None if none is due; drops expired requests on the way."""
        if self.ready_in() != 0.0:
            return None
        if self._alone:
            return self._take_alone()
        now, room = self._clock(), self.limits.max_batch_size
        interactive, bulk = self._interactive, self._bulk
        slices: list[Slice[P, R]] = []
        expired: list[Job[P, R]] = []
        if interactive.images and bulk.images:
            self._claim += self.limits.bulk_share * room + _ROUNDING
            size = interactive.cut(
                room - min(int(self._claim), bulk.images), now, slices, expired
            )
            of_bulk = bulk.cut(room - size, now, slices, expired)
            # Less than an image is kept; more than that bulk had not wanted.
            self._claim = max(0.0, self._claim - of_bulk) % 1.0
            size += of_bulk
            if size < room:  # some of bulk had expired: what it leaves, the other gets
                size += interactive.cut(room - size, now, slices, expired)
        else:
            self._claim = 0.0
            size = (interactive if interactive.images else bulk).cut(room, now, slices, expired)
        for job in expired:
            job.finish(now, DeadlineExceeded("the deadline passed while queued"))
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
        now, row, size = self._clock(), 0, batch.size
        for job, _, start, stop in batch.slices:
            if job.ended is None:
                parts = job.parts
                parts.append(Part(start, stop, result, row, error))
                if size > job.largest_batch:  # noqa: PLR1730 - half the time of max()
                    job.largest_batch = size
                answered = job.answered = job.answered + stop - start
                if answered == job.count:
                    if len(parts) > 1:
                        parts.sort(key=_start)
                    job.finish(now)
            row += stop - start

    def _take_alone(self) -> Batch[P, R] | None:
        """A batch of one image that goes before all others, or the line's next batch."""
        now, job = self._clock(), self._alone.pop(0)
        payload, job.taken, job.started = job.payload, 1, now
        if payload is None or (job.deadline is not None and job.deadline <= now):
            job.finish(now, DeadlineExceeded("the deadline passed while queued"))
            return self.take()
        return Batch((Slice(job, payload, 0, 1),), 1, is_alone=True)

    def _check_room(
        self, count: int, size_bytes: int, images: int, waiting_bytes: int, fraction: float
    ) -> None:
        """Refuse what would fill more than a fraction of the line."""
        most_images = int(fraction * self.limits.max_queue_images)
        most_bytes = int(fraction * self.limits.max_queue_bytes)
        kind = "" if fraction == 1.0 else "bulk "
        if images + count > most_images:
            raise QueueFull(
                f"expected room for {count} images, got {images} of "
                f"{most_images} {kind}waiting; retry later"
            )
        if waiting_bytes + size_bytes > most_bytes:
            raise QueueFull(
                f"expected room for {size_bytes} bytes, got {waiting_bytes} of "
                f"{most_bytes} {kind}waiting; retry later"
            )

    def _check_time(
        self, count: int, priority: Priority, left_s: float, image_s: float
    ) -> None:
        """Refuse what has expired, or would before its last image has run."""
        if left_s <= 0:
            raise DeadlineExceeded("expected time left on arrival, got an expired deadline")
        interactive, bulk = self._interactive.images, self._bulk.images
        share = self.limits.bulk_share
        if priority is Priority.BULK:
            own, other = bulk + count, interactive
        else:
            own, other, share = interactive + count, bulk, 1 - share
        # Until the last of its own lane has run, the other lane gets its share, or all it has;
        # shares are rounded to whole images, at worst in favour of this request.
        images = min(own + other, max(own, (own - 1) / share))
        if images * image_s > _MARGIN * left_s:
            raise DeadlineExceeded(
                f"expected a deadline that can be met, got {left_s:.3f} s left and "
                f"{images:.0f} images to run first at {1 / image_s:.0f} images/s; "
                "allow more time or send fewer images"
            )


def _start(part: Part[R]) -> int:
    """Where a part begins."""
    return part.start
