"""What is asked of a model, what it answers, and how batches become an answer."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from embedkit.serve.job import Part, Priority
from embedkit.serve.observe.record import ItemsRecord
from embedkit.serve.observe.tracing import Trace
from embedkit.serve.running.scoring import Rows
from embedkit.types import EncodedImages, Images

__all__ = ["Answer", "Query", "collect", "items_of", "spread"]


class Query(NamedTuple):
    """What a caller wants of some images.

    Attributes:
        images: uint8 (n, h, w, c) of any size, or image files; n at least 1.
        wants: Of ``embedding``, ``features``, ``tokens``, ``class``, ``ood_score``.
        deadline: On ``time.monotonic``, or None.
        watch: Given a function to call when the caller goes away; returns False if it has gone.
        priority: The lane of the line that it waits in.
        trace: Span of the request, or None.
    """

    images: Images | EncodedImages
    wants: frozenset[str] = frozenset({"embedding"})
    deadline: float | None = None
    watch: Callable[[Callable[[], None]], bool] | None = None
    priority: Priority = Priority.INTERACTIVE
    trace: Trace | None = None


class Answer(NamedTuple):
    """What a model says of a query's images.

    Attributes:
        rows: Arrays with n rows each: the graph outputs wanted, ``ood_score``, ``labels``,
            ``probabilities``. The row of a failed image is zero.
        errors: Why an image failed, by index.
        queue_s: Seconds from arrival in the line to the first batch.
        decode_s: Seconds of decoding and resizing.
        infer_s: Seconds from the first batch taken to the last one done.
        batch_size: Largest batch that any of the images ran in; 0 if none ran.
    """

    rows: Rows
    errors: dict[int, Exception]
    queue_s: float = 0.0
    decode_s: float = 0.0
    infer_s: float = 0.0
    batch_size: int = 0


def items_of(model: str, count: int, answer: Answer) -> ItemsRecord:
    """What is remembered of the images of an answered request to a model."""
    bad = len(answer.errors)
    times = (answer.queue_s, answer.decode_s, answer.infer_s)
    return ItemsRecord(model, count - bad, bad, *times)


def collect(parts: Sequence[Part[Rows]]) -> Rows:
    """Return the rows of a job's successful parts, in image order; a view for a single part."""
    cuts = [
        {
            name: rows[part.row : part.row + part.stop - part.start]
            for name, rows in part.result.items()
        }
        for part in parts
        if part.result is not None
    ]
    if len(cuts) < 2:
        return cuts[0] if cuts else {}
    # Parts of one job may have run beside requests that wanted more outputs than it did.
    names = set(cuts[0]).intersection(*cuts[1:])
    return {name: np.concatenate([cut[name] for cut in cuts]) for name in names}


def spread(rows: Rows, kept: Sequence[int], count: int, template: Rows) -> Rows:
    """Put the rows of good images at their places and zeros at the places of the others.

    Args:
        rows: One row per good image; may be empty if there is none.
        kept: Index of each good image.
        count: Images asked for.
        template: Array of any length for each name, for shape and dtype.
    """
    placed: Rows = {}
    for name, like in template.items():
        placed[name] = np.zeros((count, *like.shape[1:]), like.dtype)
        if name in rows:
            placed[name][list(kept)] = rows[name]
    return placed
