"""The sessions of one model and the threads that use them: start, sign of life, restart."""

import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from embedkit.errors import BundleDamaged, DeadlineExceeded
from embedkit.runtime.local import GOLDEN_LIMITS, LocalModel, check_golden
from embedkit.runtime.providers import ON_CUDA
from embedkit.runtime.session import Session
from embedkit.serve.batcher import BatchLimits
from embedkit.serve.observe.record import BatchRecord
from embedkit.serve.running.scoring import Rows
from embedkit.serve.running.station import Station, Work
from embedkit.serve.running.worker import Worker

__all__ = ["Crew"]

# One image in a batch of another size than at export may differ by a few more rounding errors.
_LEAST_LIMIT = 1e-4
# Batches that a canary may have to wait for, times how much slower they may be than at the
# start, when nothing else ran.
_BATCHES = 10.0


class Crew:
    """Runs a model's batches, and can be replaced while it does.

    Args:
        local: The bundle with its checked graph.
        limits: Sizes of the line and of a batch.
        sessions: Batches that run at the same time, each in a session of its own.
        observe: Called after each batch, on the thread that ran it.

    Attributes:
        sessions: What the batches run in now; others after a restart.
        worker: The line and its threads; likewise.
        warm_rows: Every output of the graph for one image.
        batch_s: Seconds that the largest batch took when nothing else ran.
        restarts: Times that it was restarted.
    """

    def __init__(
        self,
        local: LocalModel,
        limits: BatchLimits,
        *,
        sessions: int = 1,
        observe: Callable[[BatchRecord], None] | None = None,
    ) -> None:
        golden = local.bundle.golden(local.precision)
        self.restarts = 0
        self.batch_s = 0.0
        self.is_stopped = False
        self._local = local
        self._limits = limits
        self._observe = observe
        self._canary = Work(golden.images[:1], frozenset({"embedding"}))
        self._expected = golden.embeddings[:1]
        self._changing = threading.Lock()
        self.sessions = (local.session, *(self._new_session() for _ in range(sessions - 1)))
        self.warm_rows = self._warm_up(self.sessions)
        self.worker = self._start(self.sessions)

    @property
    def is_prefetching(self) -> bool:
        """Whether the next batch is laid out while the current one runs.

        On a CPU that would help nobody: it takes the cores that the current batch runs on. A
        device leaves them idle. Several sessions fill the gap by themselves.
        """
        return len(self.sessions) == 1 and self.sessions[0].provider in ON_CUDA

    def stop(self, timeout_s: float | None = None) -> bool:
        """Finish what is queued and end the threads; False if that took too long."""
        with self._changing:
            self.is_stopped = True
        return self.worker.stop(timeout_s)

    def check_alive(self, limit_s: float) -> None:
        """Embed a golden image before all that waits, and compare it with the bundle.

        Args:
            limit_s: Seconds after which the engine counts as stuck; more where the largest
                batch takes long.

        Raises:
            DeadlineExceeded: If a batch has been running for longer, or the image was.
            BundleDamaged: If the embedding is not the bundle's.
            Unavailable: If the crew is being stopped or restarted.
        """
        limit_s = max(limit_s, _BATCHES * self.batch_s)
        worker = self.worker
        # With several sessions the image may be run by one that is not stuck.
        oldest_s = worker.longest_s
        if oldest_s > limit_s:
            raise DeadlineExceeded(
                f"expected a batch to run for {limit_s:g} s at most, got {oldest_s:.1f} s"
            )
        (part,) = worker.ask_alone(self._canary, limit_s).parts
        if part.result is None:
            raise part.error or BundleDamaged("expected a golden embedding, got none")
        got = np.asarray(part.result["embedding"], np.float32)
        error = float(np.abs(got - self._expected).max())
        limit = max(_LEAST_LIMIT, GOLDEN_LIMITS[self._local.precision])
        if not error <= limit:
            raise BundleDamaged(
                f"expected a golden embedding within {limit:g}, got one off by {error:.3g}"
            )

    def restart(self) -> None:
        """Give up on stuck threads: tell their callers, start anew from the bundle.

        A session that never returns cannot be ended; it is left alone, with its memory.

        Raises:
            EmbedkitError: If the bundle cannot be loaded any more; calls are refused with
                UNAVAILABLE until the next restart.
        """
        self.worker.abandon("the engine is being restarted; retry")
        sessions = tuple(self._new_session() for _ in self.sessions)
        self._warm_up(sessions)
        with self._changing:
            if not self.is_stopped:
                self.sessions = sessions
                self.worker = self._start(sessions)
                self.restarts += 1

    def _new_session(self) -> Session:
        """Another session like the first, from the bundle, checked like the first."""
        first, precision = self._local.session, self._local.precision
        session = Session(
            self._local.bundle.graph(precision),
            first.digest,
            first.input,
            providers=first.providers,
            threads=first.threads,
        )
        check_golden(session, self._local.bundle, precision)
        return session

    def _start(self, sessions: Sequence[Session]) -> Worker[Work, Rows]:
        """The line, with a thread for each session, or two that share one."""
        size = self._limits.max_batch_size
        if self.is_prefetching:
            turn = threading.Lock()
            stations = [Station(sessions[0], size, turn) for _ in range(2)]
        else:
            stations = [Station(session, size) for session in sessions]
        return Worker(
            stations,
            self._limits,
            name=self._local.bundle.manifest.name,
            prefetch=self.is_prefetching,
            observe=self._observe,
        )

    def _warm_up(self, sessions: Sequence[Session]) -> Rows:
        """Run each power of two up to the largest batch, so that no caller pays for the first.

        Returns:
            Every output of the graph, for one image.
        """
        outputs = sorted(self._local.bundle.manifest.outputs)
        most = self._limits.max_batch_size
        blank = np.zeros((most, *self._local.input.shape), np.uint8)
        rows: Rows = {}
        for session in sessions:
            for size in sorted({*(1 << k for k in range(most.bit_length())), most})[::-1]:
                began = time.monotonic()
                rows = {**session.run(blank[:size], outputs)}
                if size == most:
                    self.batch_s = time.monotonic() - began
        return rows
