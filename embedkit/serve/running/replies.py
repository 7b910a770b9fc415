"""The thread that sends answers, so that the one that runs batches goes on with the next."""

import logging
import queue
import threading
from collections.abc import Callable

__all__ = ["Replies"]

log = logging.getLogger(__name__)


class Replies:
    """Runs what is put, in order, on one thread of its own."""

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._loop, name="replies", daemon=True)
        self._thread.start()

    def put(self, task: Callable[[], None]) -> None:
        """Have a task run soon; costs the caller next to nothing."""
        self._tasks.put(task)

    def stop(self) -> None:
        """End the thread after what was put so far."""
        self._tasks.put(None)
        self._thread.join()

    def _loop(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                task()
            except Exception:
                log.exception("an answer could not be sent")
            del task  # it holds a batch's rows
