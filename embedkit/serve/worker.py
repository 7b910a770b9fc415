"""The thread that runs a model's batches, one after another, and its callers' tickets."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from embedkit.errors import DeadlineExceeded, Unavailable
from embedkit.serve.batcher import Batcher, BatchLimits
from embedkit.serve.isolation import run_isolating
from embedkit.serve.job import Batch, Job
from embedkit.serve.observe.record import BatchRecord

__all__ = ["Ticket", "Worker"]

log = logging.getLogger(__name__)

P = TypeVar("P")
R = TypeVar("R")


class Ticket(Generic[P, R]):
    """A caller's hold on its request: wait for the answer, or cancel."""

    __slots__ = ("_gate", "_worker", "job")

    def __init__(self, worker: "Worker[P, R]") -> None:
        self._worker = worker
        # A bare lock costs a third of a threading.Event, and there is one per call.
        self._gate = threading.Lock()
        self._gate.acquire()
        self.job: Job[P, R]

    def wait(self) -> Job[P, R]:
        """Block until the job is finished, at most until its deadline.

        Raises:
            DeadlineExceeded: If the deadline came first; what had not run never will.
            Cancelled: If the ticket was cancelled.
            Unavailable: If the worker was stopped.
        """
        job = self.job
        left = -1.0 if job.deadline is None else max(0.0, job.deadline - self._worker.clock())
        if not self._gate.acquire(timeout=left):
            self._worker.cancel(job, DeadlineExceeded("the deadline passed before the answer"))
        if job.error is not None:
            raise job.error
        return job

    def cancel(self) -> None:
        """Withdraw the request; nothing happens if it is finished."""
        self._worker.cancel(self.job)

    def open(self, _: Job[P, R]) -> None:
        """Let the waiting caller go on."""
        self._gate.release()


class Worker(Generic[P, R]):
    """Runs batches as soon as it is free; whatever queues meanwhile forms the next one.

    Args:
        run: Turns a batch into one row per image, or raises.
        limits: Sizes of the line and of a batch.
        name: Of the model; names the thread and the records.
        observe: Called after each batch, on the worker's thread.
        clock: Seconds, never going back.
    """

    def __init__(
        self,
        run: Callable[[Batch[P, R]], R],
        limits: BatchLimits,
        *,
        name: str,
        observe: Callable[[BatchRecord], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self.batcher: Batcher[P, R] = Batcher(limits, clock)
        self._name = name
        self._run = run
        self._observe = observe
        self._changed = threading.Condition(threading.Lock())
        self._stopping = False
        self._thread = threading.Thread(target=self._loop, name=f"model-{name}", daemon=True)
        self._thread.start()

    def check(self, count: int, size_bytes: int) -> None:
        """Refuse what would not fit, before it is decoded; raises as ``Batcher.check``."""
        with self._changed:
            self.batcher.check(count, size_bytes)

    def submit(
        self, payload: P, count: int, size_bytes: int, *, deadline: float | None = None
    ) -> Ticket[P, R]:
        """Queue a request.

        Args:
            payload: What ``run`` finds in the slices.
            count: Images in it, at least 1.
            size_bytes: Bytes of its pixels.
            deadline: On the worker's clock, or None.

        Raises:
            QueueFull, MessageTooLarge, DeadlineExceeded: As ``Batcher.offer``.
            Unavailable: If the worker is stopping.
        """
        ticket: Ticket[P, R] = Ticket(self)
        ticket.job = self.offer(
            payload, count, size_bytes, deadline=deadline, on_finish=ticket.open
        )
        return ticket

    def offer(
        self,
        payload: P,
        count: int,
        size_bytes: int,
        *,
        deadline: float | None = None,
        on_finish: Callable[[Job[P, R]], None],
    ) -> Job[P, R]:
        """Queue a request whose end is told instead of waited for; raises as ``submit``.

        Args:
            payload: What ``run`` finds in the slices.
            count: Images in it, at least 1.
            size_bytes: Bytes of its pixels.
            deadline: On the worker's clock, or None.
            on_finish: Called once, while the line is locked: it may only pass the job on.
        """
        with self._changed:
            if self._stopping:
                raise Unavailable("the model is being unloaded; retry")
            job = self.batcher.offer(
                payload, count, size_bytes, deadline=deadline, on_finish=on_finish
            )
            self._changed.notify()
        return job

    def cancel(self, job: Job[P, R], error: Exception | None = None) -> None:
        """Withdraw a job, with ``error`` as its failure; nothing happens if it is finished."""
        with self._changed:
            self.batcher.cancel(job, error)

    def stop(self, timeout_s: float | None = None) -> bool:
        """Refuse new work, finish what is queued, end the thread.

        Returns:
            Whether the thread ended within ``timeout_s`` seconds.
        """
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _loop(self) -> None:
        while (batch := self._next()) is not None:
            try:
                self._execute(batch)
            except Exception as error:  # whatever it was, the next batch is not to blame
                log.exception("a batch of %d failed outside the model", batch.size)
                with self._changed:
                    self.batcher.settle(batch, error=error)
            del batch  # its slices hold the callers' pixels

    def _next(self) -> Batch[P, R] | None:
        """Wait for a batch; None once the worker stops and the line is empty."""
        with self._changed:
            while True:
                batch = self.batcher.take()
                if batch is not None:
                    return batch
                wait_s = self.batcher.ready_in()
                if wait_s is None and self._stopping:
                    return None
                self._changed.wait(wait_s)

    def _execute(self, batch: Batch[P, R]) -> None:
        began = self.clock()
        outcomes = list(run_isolating(batch, self._run))
        for outcome in outcomes:
            if outcome.error is not None:
                log.error("batch of %d failed", outcome.batch.size, exc_info=outcome.error)
        with self._changed:
            for outcome in outcomes:
                self.batcher.settle(outcome.batch, outcome.result, outcome.error)
        if self._observe is not None:
            seconds = self.clock() - began
            self._observe(BatchRecord(self._name, batch.size, seconds, len(outcomes) - 1))
