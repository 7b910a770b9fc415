"""Where one thread runs its batches: memory of its own, and a session."""

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from embedkit.runtime.session import Session
from embedkit.serve.job import Batch
from embedkit.serve.observe.tracing import Trace
from embedkit.serve.running.scoring import GRAPH_OUTPUTS, Rows
from embedkit.types import Images

__all__ = ["Station", "Work", "graph_outputs"]


class Work(NamedTuple):
    """One request's pixels at the model's size, the graph outputs it needs, and its span."""

    images: Images
    outputs: frozenset[str]
    trace: Trace | None = None


class Station:
    """Runs batches of one thread.

    Args:
        session: May be shared with another station, then with ``turn``.
        max_batch_size: Images of the largest batch.
        turn: Held while the session runs, so that the other station's batch can be laid out
            meanwhile.
    """

    def __init__(
        self,
        session: Session,
        max_batch_size: int,
        turn: AbstractContextManager[object] = nullcontext(),  # noqa: B008 - it has no state
    ) -> None:
        self._session = session
        self._turn = turn
        # Small requests are copied here, side by side: the only copy on the way from the
        # message to the session. A batch from one request is not copied at all.
        self._slab: Images = np.zeros((max_batch_size, *session.input.shape), np.uint8)

    def __call__(self, batch: Batch[Work, Rows]) -> Rows:
        """Run the graph on a batch."""
        outputs = _merge(frozenset(s.payload.outputs for s in batch.slices))
        images = self._gather(batch)
        traces = [s.payload.trace for s in batch.slices if s.payload.trace is not None]
        around = traces[0].batch(traces, batch.size) if traces else nullcontext()
        with self._turn, around:
            return {**self._session.run(images, outputs)}

    def _gather(self, batch: Batch[Work, Rows]) -> Images:
        """The pixels of a batch in one array: the caller's own where it fills the batch."""
        pieces = [s.payload.images[s.start : s.stop] for s in batch.slices]
        if len(pieces) == 1:
            return pieces[0]
        slab = self._slab[: batch.size]
        np.concatenate(pieces, out=slab)
        return slab


@lru_cache(maxsize=64)
def graph_outputs(wants: frozenset[str]) -> frozenset[str]:
    """The graph outputs that some answers need; one object per set of wants."""
    return frozenset().union(*(GRAPH_OUTPUTS[want] for want in wants))


@lru_cache(maxsize=64)
def _merge(outputs: frozenset[frozenset[str]]) -> tuple[str, ...]:
    """All graph outputs that the requests of a batch need."""
    return tuple(sorted(frozenset().union(*outputs)))
