"""One loaded model: sessions, a line and its threads, from images to answers."""

import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from embedkit.errors import Cancelled, NotFound
from embedkit.runtime.local import LocalModel
from embedkit.serve.answer import Answer, Query, collect, spread
from embedkit.serve.batcher import BatchLimits
from embedkit.serve.decode import Decoder
from embedkit.serve.job import Job
from embedkit.serve.observe.record import BatchRecord
from embedkit.serve.running.crew import Crew
from embedkit.serve.running.replies import Replies
from embedkit.serve.running.scoring import ROW_NAMES, Rows, Scoring
from embedkit.serve.running.station import Work, graph_outputs
from embedkit.serve.running.worker import Worker
from embedkit.types import EncodedImages, Images

__all__ = ["LoadedModel"]


class _Prepared(NamedTuple):
    """A query's good images at the model's size, why the others are none, and the time."""

    images: Images
    errors: Mapping[int, Exception]
    decode_s: float


class LoadedModel:
    """One version of one model, ready to answer.

    Args:
        local: The bundle with its checked graph.
        decoder: Shared by all models.
        limits: Sizes of the line and of a batch.
        observe: Called after each batch, on the thread that ran it.
        sessions: Batches that run at the same time, each in a session of its own.
    """

    def __init__(
        self,
        local: LocalModel,
        decoder: Decoder,
        limits: BatchLimits,
        observe: Callable[[BatchRecord], None] | None = None,
        *,
        sessions: int = 1,
    ) -> None:
        manifest = local.bundle.manifest
        self.bundle = local.bundle
        self.name, self.version = manifest.name, str(manifest.version)
        self.spec = manifest.input
        self.digest = local.digest
        self.precision = local.precision
        self.provider: str = local.session.provider
        self.limits = limits
        self.scoring = Scoring.load(local)
        graph = tuple(n for n in ("embedding", "features", "tokens") if n in manifest.outputs)
        self.answers: tuple[str, ...] = (*graph, *self.scoring.answers)
        self.crew = Crew(local, limits, sessions=sessions, observe=observe)
        self._decoder = decoder
        self._image_bytes = int(np.prod(self.spec.shape))
        self._template = {**self.crew.warm_rows}
        self.scoring.add_to(self._template, frozenset(self.answers))
        self._replies = Replies()
        # Every call holds its model until it is answered. So a model that was unloaded, or
        # replaced, ends with its last call, however long that takes.
        self._end = weakref.finalize(self, _end_soon, self.crew, self._replies)
        self._end.atexit = False

    @property
    def worker(self) -> Worker[Work, Rows]:
        """The line and its threads; another one after a restart."""
        return self.crew.worker

    def infer(self, query: Query) -> Answer:
        """Answer a query, batched with whatever else is waiting.

        Raises:
            NotFound: If the model cannot give what is wanted.
            InvalidInput: If there is no image, or the lone image cannot be used.
            QueueFull, MessageTooLarge: If the line has no room.
            DeadlineExceeded, Cancelled: If the caller's time ran out or it went away.
        """
        pixels = self._prepare(query)
        if not len(pixels.images) and pixels.errors:
            return self._all_bad(query, pixels)
        return self._answer(query, self._execute(pixels.images, query), pixels)

    def begin(self, query: Query, done: Callable[[Answer | Exception], None]) -> None:
        """Answer a query later; this returns as soon as it is queued.

        Args:
            query: As for ``infer``; where ``is_ready`` says so, its pixels cost no time here.
            done: Called once, on the model's replying thread, with the answer or the failure.

        Raises:
            EmbedkitError: As ``infer``, for what is known at once; ``done`` is not called then.
        """
        pixels = self._prepare(query)
        if not len(pixels.images) and pixels.errors:
            done(self._all_bad(query, pixels))
            return

        def finished(job: Job[Work, Rows]) -> None:
            self._replies.put(lambda: done(self._outcome(query, job, pixels)))

        images = pixels.images
        work = Work(images, graph_outputs(query.wants), query.trace)
        worker = self.worker
        job = worker.offer(
            work,
            len(images),
            images.nbytes,
            priority=query.priority,
            deadline=query.deadline,
            on_finish=finished,
        )
        if query.watch is not None and not query.watch(lambda: worker.cancel(job)):
            worker.cancel(job)

    def is_ready(self, images: Images | EncodedImages) -> bool:
        """Whether images can be queued as they are, without decoding or resizing."""
        return isinstance(images, np.ndarray) and images.shape[1:] == self.spec.shape

    def stop(self, timeout_s: float | None = None) -> bool:
        """Finish what is queued and end the threads; False if that took too long."""
        has_ended = _stop(self.crew, self._replies, timeout_s)
        if has_ended:
            self._end.detach()
        return has_ended

    def _prepare(self, query: Query) -> "_Prepared":
        """Pixels at the model's size; refuses what cannot be answered or has no room."""
        missing = query.wants.difference(self.answers)
        if missing:
            raise NotFound(
                f"expected outputs of {', '.join(self.answers)} from model {self.name!r}, "
                f"got {', '.join(sorted(missing))}"
            )
        count = len(query.images)
        if not isinstance(query.images, np.ndarray):  # nothing is decoded in vain
            self.worker.check(
                count,
                count * self._image_bytes,
                priority=query.priority,
                deadline=query.deadline,
            )
        began = time.monotonic()
        images, errors = self._pixels(query.images)
        if count == 1 and errors:
            raise errors[0]
        return _Prepared(images, errors, time.monotonic() - began)

    def _all_bad(self, query: Query, pixels: "_Prepared") -> Answer:
        """The answer to a query of which no image could be used."""
        rows = spread({}, (), len(query.images), self._like(query.wants))
        return Answer(rows, dict(pixels.errors))

    def _outcome(
        self, query: Query, job: Job[Work, Rows], pixels: "_Prepared"
    ) -> Answer | Exception:
        """What became of a finished job."""
        if job.error is not None:
            return job.error
        try:
            return self._answer(query, job, pixels)
        except Exception as error:
            return error

    def _pixels(self, images: Images | EncodedImages) -> tuple[Images, Mapping[int, Exception]]:
        if isinstance(images, np.ndarray):
            return self._decoder.convert(images, self.spec), {}
        decoded = self._decoder.decode(images, self.spec)
        return decoded.images, decoded.errors

    def _execute(self, images: Images, query: Query) -> Job[Work, Rows]:
        """Queue pixels and wait for their rows."""
        work = Work(images, graph_outputs(query.wants), query.trace)
        ticket = self.worker.submit(
            work,
            len(images),
            images.nbytes,
            priority=query.priority,
            deadline=query.deadline,
        )
        if query.watch is not None and not query.watch(ticket.cancel):
            ticket.cancel()
            raise Cancelled("the caller went away before its images ran")
        return ticket.wait()

    def _answer(
        self,
        query: Query,
        job: Job[Work, Rows],
        pixels: "_Prepared",
    ) -> Answer:
        """Put a job's parts, the scores and the failures together."""
        count, bad = len(query.images), pixels.errors
        errors: dict[int, Exception] = dict(bad)
        if any(part.error is not None for part in job.parts):
            sent = [i for i in range(count) if i not in bad]
            for part in job.parts:
                if part.error is not None:
                    errors.update((i, part.error) for i in sent[part.start : part.stop])
            if count == 1:
                raise errors[0]
        rows = collect(job.parts)
        if rows:
            self.scoring.add_to(rows, query.wants)
        if errors:
            kept = [i for i in range(count) if i not in errors]
            rows = spread(rows, kept, count, self._like(query.wants))
        started, ended = job.started or job.arrived, job.ended or job.arrived
        times = started - job.arrived, pixels.decode_s, ended - started
        return Answer(rows, errors, *times, job.largest_batch)

    def _like(self, wants: frozenset[str]) -> Rows:
        names = [name for want in wants for name in ROW_NAMES[want]]
        return {name: self._template[name] for name in names}


def _stop(crew: Crew, replies: Replies, timeout_s: float | None = None) -> bool:
    has_ended = crew.stop(timeout_s)
    if has_ended:
        replies.stop()
    return has_ended


def _end_soon(crew: Crew, replies: Replies) -> None:
    """End a model's threads from another one: the last holder may be one of them."""
    threading.Thread(target=_stop, args=(crew, replies), name="unload", daemon=True).start()
