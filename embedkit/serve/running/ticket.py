"""A caller's hold on its request in a worker's line."""

import threading
from typing import Generic, Protocol, TypeVar

from embedkit.errors import DeadlineExceeded
from embedkit.serve.job import Job

__all__ = ["Owner", "Ticket"]

P = TypeVar("P")
R = TypeVar("R")


class Owner(Protocol[P, R]):
    """What has the line that a ticket's job stands in."""

    def clock(self) -> float:
        """Seconds, never going back."""
        ...

    def cancel(self, job: Job[P, R], error: Exception | None = None) -> None:
        """Withdraw a job; nothing happens if it is finished."""
        ...


class Ticket(Generic[P, R]):
    """A caller's hold on its request: wait for the answer, or cancel."""

    __slots__ = ("_gate", "_owner", "job")

    def __init__(self, owner: Owner[P, R]) -> None:
        self._owner = owner
        # A bare lock costs a third of a threading.Event, and there is one per call.
        self._gate = threading.Lock()
        self._gate.acquire()
        self.job: Job[P, R]

    def wait(self) -> Job[P, R]:
        """Block until the job is finished, at most until its deadline.

        Raises:
            DeadlineExceeded: If the deadline came first; what had not run never will.
            Cancelled: If the ticket was cancelled.
            Unavailable: If the worker was stopped or abandoned.
        """
        job = self.job
        left = -1.0 if job.deadline is None else max(0.0, job.deadline - self._owner.clock())
        if not self._gate.acquire(timeout=left):
            self._owner.cancel(job, DeadlineExceeded("the deadline passed before the answer"))
        if job.error is not None:
            raise job.error
        return job

    def cancel(self) -> None:
        """Withdraw the request; nothing happens if it is finished."""
        self._owner.cancel(self.job)

    def open(self, _: Job[P, R]) -> None:
        """Let the waiting caller go on."""
        self._gate.release()
