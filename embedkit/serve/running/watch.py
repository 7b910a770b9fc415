"""The watchdog: models are asked for a known embedding, and one that is stuck is restarted.

Health follows the answers. A flag that the engine sets itself stays up when the engine hangs.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from embedkit.serve.running.crew import Crew

__all__ = ["Watch", "Watched"]

log = logging.getLogger(__name__)

_JOIN_S = 1.0


class Watched(Protocol):
    """A loaded model, as far as the watchdog needs to know it."""

    name: str
    version: str
    crew: Crew


class Watch:
    """Asks every loaded model at intervals, on a thread of its own.

    A canary goes before everything that waits, in a batch of its own, so that neither a long
    line nor a bad image is taken for a stuck engine. A model that fails is restarted from its
    bundle; if it fails again, after 1, 2, 4, 8 more failures, because what is stuck keeps its
    memory.

    Args:
        models: Returns the models that are loaded now.
        tell: Called with whether all of them are well, whenever that changes; they are taken to
            be well at first.
        every_s: Seconds between two rounds.
        limit_s: Seconds after which a model counts as stuck.
    """

    def __init__(
        self,
        models: Callable[[], Sequence[Watched]],
        tell: Callable[[bool], None],
        *,
        every_s: float = 10.0,
        limit_s: float = 30.0,
    ) -> None:
        self._models = models
        self._tell = tell
        self._every_s = every_s
        self._limit_s = limit_s
        self._is_well = True
        self._failures: dict[Watched, int] = {}
        self._telling = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="watch", daemon=True)

    def start(self) -> None:
        """Begin, with the first round one interval from now."""
        self._thread.start()

    def stop(self) -> None:
        """End; nothing is told after this has returned."""
        with self._telling:
            self._stopped.set()
        if self._thread.is_alive():
            # A model that hangs may keep the thread; the process ends without it.
            self._thread.join(_JOIN_S)

    def look(self) -> bool:
        """Ask every model once, restart those that are stuck; whether all are well then."""
        models = self._models()
        self._failures = {m: n for m, n in self._failures.items() if m in models}
        # Every model is asked, whatever the others said.
        is_well = all([self._is_alive(model) or self._revive(model) for model in models])
        self._say(is_well)
        return is_well

    def _loop(self) -> None:
        while not self._stopped.wait(self._every_s):
            try:
                self.look()
            except Exception:  # the next round must come, whatever this one met
                log.exception("a round of the watchdog failed")

    def _is_alive(self, model: Watched) -> bool:
        """Whether a model gives the known embedding; one that is being unloaded need not."""
        try:
            model.crew.check_alive(self._limit_s)
        except Exception as error:
            if model.crew.is_stopped or self._stopped.is_set():
                return True
            log.error("%s:%s fails its canary: %s", model.name, model.version, error)
            return False
        self._failures.pop(model, None)
        return True

    def _revive(self, model: Watched) -> bool:
        """Restart a model if it is time to; whether it is well then."""
        self._say(False)
        failures = self._failures[model] = self._failures.get(model, 0) + 1
        if failures & (failures - 1):
            return False
        log.warning("restarting %s:%s", model.name, model.version)
        try:
            model.crew.restart()
        except Exception:
            log.exception("%s:%s could not be restarted", model.name, model.version)
            return False
        return self._is_alive(model)

    def _say(self, is_well: bool) -> None:
        with self._telling:
            if is_well != self._is_well and not self._stopped.is_set():
                self._is_well = is_well
                self._tell(is_well)
