"""The recall of each collection's index, measured seldom and in the background."""

import logging
import threading
from collections.abc import Callable

from embedkit.errors import NotFound
from embedkit.retrieve.recall import Recall, measured_recall
from embedkit.retrieve.store import VectorStore
from embedkit.types import Collection

__all__ = ["RecallWatch"]

log = logging.getLogger(__name__)

_FIRST_S = 60.0
K = 10


class RecallWatch:
    """Measures every collection that was written to since it was measured last.

    Args:
        store: Gives the collections; None as long as there are none.
        every_s: Seconds between two rounds; 0 measures nothing.
        first_s: Seconds until the first round.
    """

    def __init__(
        self,
        store: Callable[[], VectorStore | None],
        *,
        every_s: float,
        first_s: float = _FIRST_S,
    ) -> None:
        self._store = store
        self._every_s = every_s
        self._first_s = min(first_s, every_s)
        self._stopping = threading.Event()
        self._found: dict[str, Recall] = {}
        self._thread = threading.Thread(target=self._run, name="recall", daemon=True)

    def start(self) -> None:
        """Begin, unless there is nothing to do."""
        if self._every_s:
            self._thread.start()

    def stop(self) -> None:
        """End, after the search that is under way."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def values(self) -> list[tuple[tuple[str, ...], float]]:
        """Collection and k of each measurement, and its value."""
        found = self._found.copy()
        return [((name, str(r.k)), r.value) for name, r in sorted(found.items())]

    def measure(self) -> None:
        """Measure what has changed; forget what is gone.

        A collection that cannot be measured is logged, and the next one is.
        """
        store = self._store()
        if store is None:
            return
        known = store.collections()
        for gone in set(self._found) - {c.name for c in known}:
            del self._found[gone]
        for collection in known:
            last = self._found.get(collection.name)
            if self._stopping.is_set() or (last and last.sequence == collection.sequence):
                continue
            try:
                self._measure(store, collection)
            except NotFound as error:  # dropped meanwhile
                log.info("the recall of %r is not known: %s", collection.name, error)
            except Exception:
                log.exception("the recall of %r could not be measured", collection.name)

    def _measure(self, store: VectorStore, collection: Collection) -> None:
        found = measured_recall(store, collection.name, k=K, seed=collection.sequence)
        if found is not None:
            self._found[collection.name] = found

    def _run(self) -> None:
        wait_s = self._first_s
        while not self._stopping.wait(wait_s):
            wait_s = self._every_s
            try:
                self.measure()
            except Exception:  # the next round may go better
                log.exception("the collections to measure are not known")
