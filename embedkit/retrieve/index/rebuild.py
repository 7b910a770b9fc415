"""Building a collection's index anew in the background, and when that is due."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from os import cpu_count
from pathlib import Path
from typing import Protocol

import faiss
import numpy as np

from embedkit.retrieve.index.blocks import Slots
from embedkit.retrieve.index.build import build_segment
from embedkit.retrieve.index.engines.source import Source, Stopped
from embedkit.retrieve.index.engines.spec import Spec
from embedkit.retrieve.index.kinds import kind_for
from embedkit.retrieve.index.layered import LayeredIndex
from embedkit.retrieve.index.segment import Segment
from embedkit.retrieve.memory import give_back
from embedkit.types import Collection

__all__ = ["Host", "Progress", "Rebuilder", "due"]

_LOG = logging.getLogger(__name__)
# Fewer are compared one by one faster than a graph or clusters pay.
LEAST = 4096
_TAIL_SHARE = 0.1
_REMOVED_SHARE = 0.25
# A build sees what is there when it begins: better to let a stream of writes end first, if it
# does so soon.
_REST_S = 0.25
_LONGEST_REST_S = 5.0
_RETRY_S = 60.0
# Builds share the machine with searches: one at a time in this process.
_BUILDING = threading.Semaphore(1)


class Host(Protocol):
    """The collection that an index is built for."""

    @property
    def folder(self) -> Path:
        """Where its files are."""
        ...

    def standing(self) -> tuple[Collection, LayeredIndex]:
        """What readers see now."""
        ...

    def holding(self) -> AbstractContextManager[object]:
        """Hold writes back within the block."""
        ...

    def source(self, check: Callable[[], None]) -> tuple[Source, int, int]:
        """The vectors of now, with the highest slot and the number of the last write.

        Called while writes are held back, read when they are not.
        """
        ...

    def publish(self, segment: Segment, sequence: int, gone: Slots) -> None:
        """Let readers see a new segment as of a write; called while writes are held back."""
        ...

    def save(self, segment: Segment, sequence: int) -> None:
        """Write the snapshot."""
        ...


@dataclass(frozen=True)
class Progress:
    """How the building goes.

    Attributes:
        is_building: Whether a build is under way or waits for its turn.
        builds: Segments published since the collection was opened.
        error: Why the last build or snapshot failed; empty if it did not.
    """

    is_building: bool
    builds: int
    error: str


def due(collection: Collection, index: LayeredIndex) -> Spec | None:
    """What to build now, or None while the index is good enough."""
    kind = kind_for(collection.kind, index.count, collection.dim)
    if kind == "flat" or index.count < LEAST:
        return None
    spec = Spec(kind, collection.storage, collection.metric, collection.dim)
    if index.segment is None:
        return spec
    size = len(index.segment.slots)
    is_due = (
        index.tail.count >= max(LEAST, _TAIL_SHARE * size)
        or index.removed >= max(LEAST, _REMOVED_SHARE * size)
        or index.segment.spec != spec
        or index.is_damaged
    )
    return spec if is_due else None


class Rebuilder:
    """Builds the index of one collection on a thread that lives while there is work."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._retry: threading.Timer | None = None
        self._idle = threading.Event()
        self._idle.set()
        self._stopped = threading.Event()
        self._gone: list[Slots] | None = None
        self._last_write = 0.0
        self._retry_at = 0.0
        self._is_forced = False
        self._unsaved: tuple[Segment, int] | None = None
        self._builds = 0
        self._error = ""

    @property
    def progress(self) -> Progress:
        """How the building goes."""
        return Progress(not self._idle.is_set(), self._builds, self._error)

    def written(self, gone: Slots) -> None:
        """Note a write; called after its commit, while writes are held back."""
        noted = self._gone
        if noted is not None and len(gone):
            noted.append(gone)
        self._last_write = time.monotonic()
        self.consider()

    def consider(self, *, is_forced: bool = False) -> None:
        """Begin to build if that is due, or anyway."""
        with self._lock:
            self._is_forced |= is_forced
            if self._stopped.is_set() or not self._idle.is_set() or not self._has_work():
                return
            self._idle.clear()
            self._thread = threading.Thread(target=self._run, name="index build", daemon=True)
            self._thread.start()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until nothing is being built; returns whether that came to be."""
        return self._idle.wait(timeout_s)

    def stop(self) -> None:
        """End the build in progress, and begin no other. Not to be called with writes held."""
        self._stopped.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()
        if self._retry is not None:
            self._retry.cancel()

    def resume(self) -> None:
        """Build again after ``stop``."""
        self._stopped.clear()
        self.consider()

    def _has_work(self) -> bool:
        if time.monotonic() < self._retry_at and not self._is_forced:
            return False
        return self._unsaved is not None or self._wanted() is not None

    def _wanted(self) -> Spec | None:
        collection, index = self._host.standing()
        spec = due(collection, index)
        if spec is None and self._is_forced and index.segment is not None and index.count:
            return index.segment.spec
        return spec

    def _run(self) -> None:
        faiss.omp_set_num_threads(max(1, (cpu_count() or 2) // 2))
        while True:
            try:
                self._build()
            except Stopped:
                pass
            except Exception as error:
                # The index stays as it was, and the truth is not concerned.
                _LOG.exception("the index was not built anew")
                self._error = f"{type(error).__name__}: {error}"
                self._retry_later()
            with self._lock:
                self._gone = None
                if self._stopped.is_set() or not self._has_work():
                    self._idle.set()
                    return

    def _retry_later(self) -> None:
        """Have it tried again in a while, whether or not somebody writes until then."""
        self._retry_at = time.monotonic() + _RETRY_S
        self._retry = threading.Timer(_RETRY_S, self.consider)
        self._retry.daemon = True
        self._retry.start()

    def _build(self) -> None:
        self._rest()
        with self._turn():
            with self._host.holding():
                spec = self._wanted()
                self._is_forced = False
                if spec is not None:
                    self._gone = []
                    source, last_slot, sequence = self._host.source(self._check)
            if spec is not None:
                segment = build_segment(spec, source, last_slot, self._check, self._host.folder)
                with self._host.holding():
                    self._check()
                    gone, self._gone = self._gone or [], None
                    gone_slots = np.concatenate([*gone, np.empty(0, np.int64)])
                    self._host.publish(segment, sequence, gone_slots)
                    self._builds += 1
                self._unsaved = (segment, sequence)
                del segment, source
            if self._unsaved is not None:
                self._host.save(*self._unsaved)
                self._unsaved = None
            self._error = ""
        give_back()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait until no other collection builds."""
        while not _BUILDING.acquire(timeout=_REST_S):
            self._check()
        try:
            yield
        finally:
            _BUILDING.release()

    def _rest(self) -> None:
        """Wait until writes pause, but not for long, nor where much has come already."""
        end = time.monotonic() + _LONGEST_REST_S
        while True:
            self._check()
            _, index = self._host.standing()
            below = 0 if index.segment is None else len(index.segment.slots)
            rest = min(self._last_write + _REST_S, end) - time.monotonic()
            if rest <= 0 or index.tail.count > max(16 * LEAST, below):
                return
            self._stopped.wait(min(rest, _REST_S))

    def _check(self) -> None:
        if self._stopped.is_set():
            raise Stopped
