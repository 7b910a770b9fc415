"""The threads that run a model's batches, all from one line."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from embedkit.errors import Unavailable
from embedkit.serve.batcher import Batcher, BatchLimits
from embedkit.serve.job import Batch, Job, Priority
from embedkit.serve.observe.record import BatchRecord
from embedkit.serve.running.isolation import Outcome, run_isolating
from embedkit.serve.running.pace import Pace
from embedkit.serve.running.ticket import Ticket

__all__ = ["Worker"]

log = logging.getLogger(__name__)

P = TypeVar("P")
R = TypeVar("R")


class _Running(NamedTuple, Generic[P, R]):
    """A batch in some thread's hands, and since when."""

    batch: Batch[P, R]
    since: float


class Worker(Generic[P, R]):
    """Runs batches as soon as it is free; whatever queues meanwhile forms the next one.

    Without ``prefetch`` each of ``runs`` is a thread of its own that works at the same time as
    the others. With it, there are two and they take turns at one session: while one of them
    runs its batch, the other takes the next one and lays its pixels side by side, so that the
    session goes from batch to batch without a gap. A batch is taken ahead only if it is full:
    taken any earlier it could only be smaller than the one that would have been formed in time.

    Args:
        runs: Each turns a batch into one row per image, or raises; one thread calls each.
        limits: Sizes of the line and of a batch.
        name: Of the model; names the threads and the records.
        prefetch: Whether the second of two ``runs`` only works ahead of the first.
        observe: Called after each batch of the line, on the thread that ran it.
        clock: Seconds, never going back.
    """

    def __init__(
        self,
        runs: Sequence[Callable[[Batch[P, R]], R]],
        limits: BatchLimits,
        *,
        name: str,
        prefetch: bool = False,
        observe: Callable[[BatchRecord], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self.batcher: Batcher[P, R] = Batcher(limits, clock)
        self.pace = Pace(limits.max_batch_size, sessions=1 if prefetch else len(runs))
        self._name = name
        self._observe = observe
        self._changed = threading.Condition(threading.Lock())
        self._refusal = ""
        self._is_abandoned = False
        self._sessions = 1 if prefetch else len(runs)
        self._running: dict[int, _Running[P, R]] = {}
        self._last_end = 0.0
        self._threads = [
            threading.Thread(
                target=self._loop, args=(i, run), name=f"model-{name}-{i}", daemon=True
            )
            for i, run in enumerate(runs)
        ]
        for thread in self._threads:
            thread.start()

    def check(
        self,
        count: int,
        size_bytes: int,
        *,
        priority: Priority = Priority.INTERACTIVE,
        deadline: float | None = None,
    ) -> None:
        """Refuse what would not fit, before it is decoded; raises as ``Batcher.check``."""
        with self._changed:
            self.batcher.check(
                count,
                size_bytes,
                priority=priority,
                deadline=deadline,
                image_s=self.pace.image_s,
            )

    def submit(
        self,
        payload: P,
        count: int,
        size_bytes: int,
        *,
        priority: Priority = Priority.INTERACTIVE,
        deadline: float | None = None,
    ) -> Ticket[P, R]:
        """Queue a request.

        Args:
            payload: What ``runs`` find in the slices.
            count: Images in it, at least 1.
            size_bytes: Bytes of its pixels.
            priority: The lane it stands in.
            deadline: On the worker's clock, or None.

        Raises:
            QueueFull, MessageTooLarge, DeadlineExceeded: As ``Batcher.offer``.
            Unavailable: If the worker is stopping, or was abandoned.
        """
        ticket: Ticket[P, R] = Ticket(self)
        ticket.job = self.offer(
            payload,
            count,
            size_bytes,
            priority=priority,
            deadline=deadline,
            on_finish=ticket.open,
        )
        return ticket

    def offer(
        self,
        payload: P,
        count: int,
        size_bytes: int,
        *,
        priority: Priority = Priority.INTERACTIVE,
        deadline: float | None = None,
        on_finish: Callable[[Job[P, R]], None],
    ) -> Job[P, R]:
        """Queue a request whose end is told instead of waited for; raises as ``submit``.

        Args:
            payload: What ``runs`` find in the slices.
            count: Images in it, at least 1.
            size_bytes: Bytes of its pixels.
            priority: The lane it stands in.
            deadline: On the worker's clock, or None.
            on_finish: Called once, while the line is locked: it may only pass the job on.
        """
        with self._changed:
            if self._refusal:
                raise Unavailable(self._refusal)
            job = self.batcher.offer(
                payload,
                count,
                size_bytes,
                priority=priority,
                deadline=deadline,
                image_s=self.pace.image_s,
                on_finish=on_finish,
            )
            self._changed.notify()
        return job

    def ask_alone(self, payload: P, timeout_s: float) -> Job[P, R]:
        """Run one image before all that waits, in a batch of its own, and wait for it.

        Raises:
            DeadlineExceeded: If no thread ran it within ``timeout_s`` seconds.
            Unavailable: If the worker is stopping, or was abandoned.
        """
        ticket: Ticket[P, R] = Ticket(self)
        with self._changed:
            if self._refusal:
                raise Unavailable(self._refusal)
            ticket.job = self.batcher.offer_alone(
                payload, deadline=self.clock() + timeout_s, on_finish=ticket.open
            )
            self._changed.notify()
        return ticket.wait()

    def cancel(self, job: Job[P, R], error: Exception | None = None) -> None:
        """Withdraw a job, with ``error`` as its failure; nothing happens if it is finished."""
        with self._changed:
            self.batcher.cancel(job, error)

    @property
    def longest_s(self) -> float:
        """Seconds that the oldest running batch has been running; 0 if none is."""
        with self._changed:
            since = [running.since for running in self._running.values()]
            return self.clock() - min(since) if since else 0.0

    def stop(self, timeout_s: float | None = None) -> bool:
        """Refuse new work, finish what is queued, end the threads.

        Returns:
            Whether the threads ended within ``timeout_s`` seconds; abandoned ones count as
            ended.
        """
        with self._changed:
            self._refusal = self._refusal or "the model is being unloaded; retry"
            self._changed.notify_all()
        if self._is_abandoned:
            return True
        end = None if timeout_s is None else time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(None if end is None else max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def abandon(self, reason: str) -> None:
        """Give up on threads that do not come back: every caller is told, none is waited for.

        A thread that does come back one day finds its callers gone and ends.

        Args:
            reason: What callers get as the message of ``Unavailable``.
        """
        with self._changed:
            self._refusal, self._is_abandoned = reason, True
            self.batcher.cancel_all(Unavailable(reason))
            for running in self._running.values():
                for s in running.batch.slices:
                    self.batcher.cancel(s.job, Unavailable(reason))
            self._running.clear()
            self._changed.notify_all()

    def _loop(self, index: int, run: Callable[[Batch[P, R]], R]) -> None:
        while (batch := self._next(index)) is not None:
            try:
                self._execute(index, batch, run)
            except Exception as error:  # whatever it was, the next batch is not to blame
                log.exception("a batch of %d failed outside the model", batch.size)
                with self._changed:
                    self._running.pop(index, None)
                    self.batcher.settle(batch, error=error)
            del batch  # its slices hold the callers' pixels

    def _next(self, index: int) -> Batch[P, R] | None:
        """Wait for a batch; None once the worker stops and the line is empty."""
        batcher, full = self.batcher, self.batcher.limits.max_batch_size
        with self._changed:
            while not self._is_abandoned:
                wait_s = None
                if len(self._running) < self._sessions or batcher.queued_images >= full:
                    batch = batcher.take()
                    if batch is not None:
                        self._running[index] = _Running(batch, self.clock())
                        if batcher.queued_images and len(self._threads) > 1:
                            self._changed.notify()  # there is work for another one
                        return batch
                    wait_s = batcher.ready_in()
                if wait_s is None and self._refusal and not batcher.queued_images:
                    return None
                self._changed.wait(wait_s)
        return None

    def _execute(self, index: int, batch: Batch[P, R], run: Callable[[Batch[P, R]], R]) -> None:
        outcomes = list(run_isolating(batch, run))
        for outcome in outcomes:
            if outcome.error is not None:
                log.error("batch of %d failed", outcome.batch.size, exc_info=outcome.error)
        with self._changed:
            seconds = self._finish(index, batch, outcomes)
        if self._observe is not None and not batch.is_alone:  # that was no caller's work
            self._observe(BatchRecord(self._name, batch.size, seconds, len(outcomes) - 1))

    def _finish(
        self, index: int, batch: Batch[P, R], outcomes: Sequence[Outcome[P, R]]
    ) -> float:
        """Settle a batch that has run; returns the seconds that it kept its session."""
        now = self.clock()
        running = self._running.pop(index, None)
        seconds = 0.0
        if running is not None:  # else it was abandoned
            # One that was taken ahead had to wait for the session.
            is_ahead = self._sessions < len(self._threads)
            seconds = now - (max(running.since, self._last_end) if is_ahead else running.since)
            self._last_end = now
            if len(outcomes) == 1 and outcomes[0].error is None:
                self.pace.learn(batch.size, seconds)
        for outcome in outcomes:
            self.batcher.settle(outcome.batch, outcome.result, outcome.error)
        if len(self._threads) > 1:
            self._changed.notify()
        return seconds
