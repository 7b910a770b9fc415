"""The threads that calls are handled on, made for ``grpc.server``.

Python's own ``ThreadPoolExecutor`` hands work to whichever thread waited longest, makes a
future per call and queues without a limit. Here the thread that finished last goes on first,
while its stack is still in the cache; nobody reads futures, so there are none; and where too
many calls wait, further ones run on a few threads that know that they must refuse.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import ParamSpec, TypeVar

from embedkit.errors import InvalidInput

__all__ = ["HandlerPool", "is_shedding"]

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
Task = Callable[[], object]

_SHEDDING_THREADS = 2
_place = threading.local()


def is_shedding() -> bool:
    """Whether this thread only refuses calls, because too many wait already."""
    return getattr(_place, "is_shedding", False)


class _NoFuture(Future[T]):
    """Stands where a future is expected and forgets whoever waits for it."""

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        """Forget it; gRPC counts calls with it that we do not limit there."""


class HandlerPool(Executor):
    """A bounded pool of threads, started as needed.

    Args:
        threads: Calls handled at a time, at least 1.
        backlog: Calls that may wait for a thread; further ones are refused.

    Raises:
        InvalidInput: If ``threads`` is not positive or ``backlog`` negative.
    """

    def __init__(self, threads: int, backlog: int = 1024) -> None:
        if threads < 1 or backlog < 0:
            raise InvalidInput(
                f"expected threads >= 1 and backlog >= 0, got {threads} and {backlog}"
            )
        self._handlers = _Crew(threads, "call")
        self._shedders = _Crew(_SHEDDING_THREADS, "shed", is_shedding=True)
        self._backlog = backlog

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a call on the next free thread; the future that comes back never completes."""

        def task() -> object:
            return fn(*args, **kwargs)

        if not self._handlers.put(task, self._backlog):
            self._shedders.put(task, None)
        return _NoFuture()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the threads once they have nothing to do."""
        for crew in (self._handlers, self._shedders):
            crew.stop(wait)


class _Slot:
    """One thread's place to receive a task; the gate opens when there is one."""

    __slots__ = ("gate", "task")

    def __init__(self, task: Task) -> None:
        self.task: Task | None = task
        self.gate = threading.Lock()
        self.gate.acquire()


class _Crew:
    """Threads that take tasks, last in first out."""

    def __init__(self, size: int, name: str, *, is_shedding: bool = False) -> None:
        self._size = size
        self._name = name
        self._is_shedding = is_shedding
        self._lock = threading.Lock()
        self._idle: list[_Slot] = []
        self._waiting: deque[Task] = deque()
        self._threads: list[threading.Thread] = []
        self._stopping = False

    def put(self, task: Task, limit: int | None) -> bool:
        """Hand a task to a thread, or let it wait; False if ``limit`` tasks wait already."""
        with self._lock:
            if self._idle:
                slot = self._idle.pop()
                slot.task = task
                slot.gate.release()
            elif len(self._threads) < self._size:
                self._start(_Slot(task))
            elif limit is not None and len(self._waiting) >= limit:
                return False
            else:
                self._waiting.append(task)
        return True

    def stop(self, wait: bool) -> None:
        """Let idle threads end, and busy ones once they are idle."""
        with self._lock:
            self._stopping = True
            for slot in self._idle:
                slot.gate.release()
            self._idle.clear()
        if wait:
            for thread in self._threads:
                thread.join()

    def _start(self, slot: _Slot) -> None:
        name = f"{self._name}-{len(self._threads)}"
        thread = threading.Thread(target=self._loop, args=(slot,), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _loop(self, slot: _Slot) -> None:
        _place.is_shedding = self._is_shedding
        while (task := slot.task) is not None:
            slot.task = None
            try:
                task()
            except BaseException:
                log.exception("a call's handler failed outside its own care")
            del task  # it holds the call's request
            self._rest(slot)

    def _rest(self, slot: _Slot) -> None:
        """Give the slot its next task: a waiting one, or none at the end, or block for one."""
        with self._lock:
            if self._waiting:
                slot.task = self._waiting.popleft()
                return
            if self._stopping:
                return
            self._idle.append(slot)
        slot.gate.acquire()
