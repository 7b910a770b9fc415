"""One loaded model: a session, a batcher and its thread, from images to answers."""

import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from embedkit.errors import Cancelled, NotFound
from embedkit.runtime.local import LocalModel
from embedkit.serve.answer import Answer, Query, collect, spread
from embedkit.serve.batcher import BatchLimits
from embedkit.serve.decode import Decoder
from embedkit.serve.job import Batch, Job
from embedkit.serve.observe.record import BatchRecord
from embedkit.serve.replies import Replies
from embedkit.serve.scoring import GRAPH_OUTPUTS, ROW_NAMES, Rows, Scoring
from embedkit.serve.worker import Worker
from embedkit.types import EncodedImages, Images

__all__ = ["LoadedModel"]


class Work(NamedTuple):
    """One request's pixels at the model's size, and the graph outputs it needs."""

    images: Images
    outputs: frozenset[str]


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
        observe: Called after each batch, on the model's thread.
    """

    def __init__(
        self,
        local: LocalModel,
        decoder: Decoder,
        limits: BatchLimits,
        observe: Callable[[BatchRecord], None] | None = None,
    ) -> None:
        manifest = local.bundle.manifest
        self.bundle = local.bundle
        self.name, self.version = manifest.name, str(manifest.version)
        self.spec = manifest.input
        self.digest = local.digest
        self.provider: str = local.session.provider
        self.limits = limits
        self.scoring = Scoring.load(local)
        graph = tuple(n for n in ("embedding", "features", "tokens") if n in manifest.outputs)
        self.answers: tuple[str, ...] = (*graph, *self.scoring.answers)
        self._session = local.session
        self._decoder = decoder
        # Small requests are copied here, side by side; a batch from one request is not.
        self._slab: Images = np.zeros((limits.max_batch_size, *self.spec.shape), np.uint8)
        self._image_bytes = self._slab[0].nbytes
        self._template = self._warm_up()
        self.worker: Worker[Work, Rows] = Worker(
            self._run,
            limits,
            name=self.name,
            observe=observe,
        )
        self._replies = Replies()

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
        work = Work(images, _graph_outputs(query.wants))
        job = self.worker.offer(
            work, len(images), images.nbytes, deadline=query.deadline, on_finish=finished
        )
        if query.watch is not None and not query.watch(lambda: self.worker.cancel(job)):
            self.worker.cancel(job)

    def is_ready(self, images: Images | EncodedImages) -> bool:
        """Whether images can be queued as they are, without decoding or resizing."""
        return isinstance(images, np.ndarray) and images.shape[1:] == self.spec.shape

    def stop(self, timeout_s: float | None = None) -> bool:
        """Finish what is queued and end the threads; False if that took too long."""
        has_ended = self.worker.stop(timeout_s)
        if has_ended:
            self._replies.stop()
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
            self.worker.check(count, count * self._image_bytes)
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
        work = Work(images, _graph_outputs(query.wants))
        ticket = self.worker.submit(work, len(images), images.nbytes, deadline=query.deadline)
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

    def _run(self, batch: Batch[Work, Rows]) -> Rows:
        """Run the graph on a batch; on the worker's thread."""
        outputs = _merge(frozenset(s.payload.outputs for s in batch.slices))
        return {**self._session.run(self._gather(batch), outputs)}

    def _gather(self, batch: Batch[Work, Rows]) -> Images:
        """The pixels of a batch in one array: the caller's own where it fills the batch."""
        pieces = [s.payload.images[s.start : s.stop] for s in batch.slices]
        if len(pieces) == 1:
            return pieces[0]
        slab = self._slab[: batch.size]
        np.concatenate(pieces, out=slab)
        return slab

    def _warm_up(self) -> Rows:
        """Run each power of two up to the largest batch, so that no caller pays for the first.

        Returns:
            Every array that an answer can have, for one image.
        """
        outputs = sorted(self.bundle.manifest.outputs)
        sizes = {1 << k for k in range(self.limits.max_batch_size.bit_length())}
        for size in sorted({*sizes, self.limits.max_batch_size} - {1}):
            self._session.run(self._slab[:size], outputs)
        rows: Rows = {**self._session.run(self._slab[:1], outputs)}
        self.scoring.add_to(rows, frozenset(self.answers))
        return rows

    def _like(self, wants: frozenset[str]) -> Rows:
        names = [name for want in wants for name in ROW_NAMES[want]]
        return {name: self._template[name] for name in names}


@lru_cache(maxsize=64)
def _graph_outputs(wants: frozenset[str]) -> frozenset[str]:
    """The graph outputs that some answers need; one object per set of wants."""
    return frozenset().union(*(GRAPH_OUTPUTS[want] for want in wants))


@lru_cache(maxsize=64)
def _merge(outputs: frozenset[frozenset[str]]) -> tuple[str, ...]:
    """All graph outputs that the requests of a batch need."""
    return tuple(sorted(frozenset().union(*outputs)))
