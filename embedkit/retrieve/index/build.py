"""Building a segment: train, fill, and measure how hard it has to try."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedkit.retrieve.index.blocks import Slots
from embedkit.retrieve.index.engines.curve import Curve, Point
from embedkit.retrieve.index.engines.hnsw import build_graph
from embedkit.retrieve.index.engines.ivf import build_inverted_file, held_out
from embedkit.retrieve.index.engines.rows import RowWriter
from embedkit.retrieve.index.engines.source import ReplacedError, Source, Stopped
from embedkit.retrieve.index.engines.spec import Spec
from embedkit.retrieve.index.neighbours import Neighbours, joined
from embedkit.retrieve.index.scoring import nearest, prepared, rescored
from embedkit.retrieve.index.segment import Segment
from embedkit.retrieve.index.selection import Selection
from embedkit.types import Embeddings, SearchParams

__all__ = ["build_segment"]

_NEIGHBOURS = (10, 30, 100)
_NEAR = 20
_ENOUGH = 0.999
_WIDTHS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
# Codes of a byte per dimension order the vectors nearly as the vectors themselves do.
_FINE_WIDTH = 1.2

Truth = tuple[Embeddings, Neighbours]


def build_segment(
    spec: Spec, source: Source, last_slot: int, check: Callable[[], None], folder: Path
) -> Segment:
    """Build an index of every vector of a source.

    Args:
        spec: What to build.
        source: Vectors up to ``last_slot``.
        last_slot: The highest slot that the source can have.
        check: Called now and then; raises to end the build.
        folder: For the file of whole vectors, of what holds only codes.

    Raises:
        OSError: If the disk refuses that file.
        Stopped: If the source has no vector left, or by ``check``.
    """
    if not len(source.slots()):
        raise Stopped
    build = build_graph if spec.kind == "hnsw" else build_inverted_file
    if spec.holds_vectors:
        engine, slots = build(spec, source, check, lambda rows: None)
        return _measured(Segment(spec, engine, slots, last_slot), source, check)
    writer = RowWriter(folder, spec.dim)
    try:
        engine, slots = build(spec, source, check, writer.add)
        segment = Segment(spec, engine, slots, last_slot, writer.rows())
        return _measured(segment, source, check)
    except BaseException:
        writer.discard()
        raise


def _measured(segment: Segment, source: Source, check: Callable[[], None]) -> Segment:
    """The segment with its curve and the largest error of its codes."""
    check()
    queries = _queries(segment, source)
    most = min(_NEIGHBOURS[-1] + 1, len(segment.slots))
    truth, error = Neighbours.none(len(queries)), 0.0
    for slots, rows in _content(segment, source):
        check()
        places = segment.places(slots)
        if len(places) == len(slots):
            error = max(error, largest_error(segment, places, rows))
        truth = joined([truth, _nearest(queries, slots, rows, most, segment)], most)
    segment = replace(segment, largest_error=error)
    counted = [k for k in _NEIGHBOURS if k < most]
    if not counted:
        return segment
    width = _width(segment, queries, truth, counted[0], source)
    points = []
    for k in counted:
        for effort in segment.engine.efforts:
            check()
            recall = _recall(segment, queries, truth, k, effort, width, source)
            points.append(Point(k, effort, recall))
            if recall >= _ENOUGH:
                break
    return segment.with_curve(Curve(width, tuple(points)))


def _content(segment: Segment, source: Source) -> Iterator[tuple[Slots, Embeddings]]:
    """Every vector of the segment, prepared, some thousand at a time, with its slot."""
    if segment.rows is None:
        for slots, vectors in source.stream():
            yield slots, prepared(vectors, segment.spec.metric)
    else:
        for start, rows in segment.rows.stream():
            yield segment.slots[start : start + len(rows)], rows


def largest_error(segment: Segment, places: Slots, vectors: Embeddings) -> float:
    """Largest squared distance between prepared vectors and what their codes stand for."""
    coded = segment.engine.vectors(places).astype(np.float64)
    coded -= vectors
    return float(np.einsum("nd,nd->n", coded, coded).max(initial=0.0))


def _queries(segment: Segment, source: Source) -> Embeddings:
    """Vectors that the index does not know better than it would know new ones.

    Those that centres were not fitted to. A graph links all to their neighbours: there they are
    moved by the difference of two of their neighbours, over the square root of two, which is
    as far as a neighbour is where dimensions are many.
    """
    metric = segment.spec.metric
    base = prepared(source.fetch(held_out(segment.slots))[1], metric)
    if segment.spec.kind != "hnsw":
        return base
    wide = min(_NEAR + 1, len(segment.slots))
    found = segment.engine.search(base, wide, _NEAR, None).position
    columns = np.random.default_rng(2).integers(0, wide, (len(base), 2))
    pairs = found[np.arange(len(base))[:, None], columns]
    first, second = np.where((pairs < 0).any(axis=1), 0, pairs.T)
    moved = segment.engine.vectors(first) - segment.engine.vectors(second)
    return prepared(base + moved * np.float32(0.5**0.5), metric)


def _nearest(
    queries: Embeddings, slots: Slots, rows: Embeddings, k: int, segment: Segment
) -> Neighbours:
    metric = segment.spec.metric
    _, found = nearest(queries, rows, min(k, len(rows)), metric)
    scores = rescored(queries, found, lambda places: rows[places], metric)
    return Neighbours.ranked(slots[found], scores, k)


def _width(
    segment: Segment, queries: Embeddings, truth: Neighbours, k: int, source: Source
) -> float:
    """How many candidates per neighbour are needed where everything is looked at."""
    if segment.spec.holds_vectors:
        return 1.0
    if segment.spec.kind != "pq":
        return _FINE_WIDTH
    for width in _WIDTHS:
        recall = _recall(segment, queries, truth, k, segment.engine.most, width, source)
        if recall >= _ENOUGH - 0.01:
            return width
    return _WIDTHS[-1]


def _recall(
    segment: Segment,
    queries: Embeddings,
    truth: Neighbours,
    k: int,
    effort: int,
    width: float,
    source: Source,
) -> float:
    """Share of the true neighbours found, less its standard error.

    A query that is one of the vectors is none of its neighbours. A vector as near as the last
    true neighbour counts as one.
    """
    itself = int(segment.spec.kind != "hnsw")
    curve = Curve(width, (Point(k + itself, effort, 1.0),))
    try:
        near = segment.with_curve(curve).search(
            queries,
            k + itself,
            Selection.everything(len(segment.slots)),
            SearchParams(recall_target=0.5),
            source,
        )
    except ReplacedError:  # where all are compared: this effort does not suffice anyway
        return 0.0
    last: npt.NDArray[np.float64] = truth.scores[:, k + itself - 1, None]
    hits = (near.scores >= last).sum(axis=1)
    shares = np.clip((hits - itself) / k, 0, 1)
    return float(shares.mean() - shares.std() / len(shares) ** 0.5)
