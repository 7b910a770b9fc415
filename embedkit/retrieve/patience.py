"""How long a call may go on: until its deadline, or until its caller goes away."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from embedkit.errors import Cancelled, DeadlineExceeded

__all__ = ["FOREVER", "Patience"]

# Some ten microseconds of SQLite's work, or some milliseconds where it asks Python per row.
_STEPS = 4000
# A caller that has gone is noticed after so long by who waits in line.
_LOOK_S = 0.1


class Patience:
    """Says whether anybody still waits for an answer; may be asked from any thread.

    Args:
        timeout_s: Seconds from now until nobody does; None for no limit.
    """

    def __init__(self, timeout_s: float | None = None) -> None:
        self._end = None if timeout_s is None else time.monotonic() + timeout_s
        self._is_cancelled = False

    @property
    def is_over(self) -> bool:
        """Whether to stop."""
        return self._is_cancelled or (self._end is not None and time.monotonic() > self._end)

    @property
    def left_s(self) -> float | None:
        """Seconds until it is over, at least 0; None without a limit."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def cancel(self) -> None:
        """The caller has gone."""
        self._is_cancelled = True

    def check(self) -> None:
        """Go on only if somebody waits.

        Raises:
            Cancelled: If the caller has gone.
            DeadlineExceeded: If the time is over.
        """
        if self._is_cancelled:
            raise Cancelled("the caller has gone")
        if self.is_over:
            raise DeadlineExceeded("the deadline passed before the answer was found")

    @contextmanager
    def holding(self, lock: threading.Lock) -> Iterator[None]:
        """Hold a lock within the block, if it is free before nobody waits any more.

        Raises:
            Cancelled, DeadlineExceeded: As ``check``, without the lock.
        """
        while not lock.acquire(timeout=self._wait_s()):
            self.check()
        try:
            yield
        finally:
            lock.release()

    def _wait_s(self) -> float:
        """How long to wait for something before looking whether it is over."""
        left = self.left_s
        return _LOOK_S if left is None else min(left, _LOOK_S)

    @contextmanager
    def over(self, connection: sqlite3.Connection) -> Iterator[None]:
        """Have the statements that a connection runs in the block stopped when it is over.

        Raises:
            Cancelled, DeadlineExceeded: As ``check``.
        """
        self.check()
        connection.set_progress_handler(lambda: int(self.is_over), _STEPS)
        try:
            yield
        except sqlite3.OperationalError:
            self.check()
            raise
        finally:
            connection.set_progress_handler(None, 0)


FOREVER = Patience()
"""Never over."""
