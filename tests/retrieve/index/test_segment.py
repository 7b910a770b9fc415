"""Every approximate kind against brute force: recall, filters, removals, snapshots."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedkit.retrieve.index import segment as segment_module
from embedkit.retrieve.index.build import build_segment
from embedkit.retrieve.index.engines.source import ReplacedError, Stopped
from embedkit.retrieve.index.engines.spec import Spec
from embedkit.retrieve.index.flat import FlatIndex
from embedkit.retrieve.index.layered import LayeredIndex
from embedkit.retrieve.index.segment import Segment
from embedkit.retrieve.index.selection import Selection
from embedkit.retrieve.index.snapshots import snapshot
from embedkit.retrieve.index.snapshots.snapshot import (
    SnapshotError,
    read_snapshot,
    write_snapshot,
)
from embedkit.types import Metric, SearchParams

DIM, COUNT = 12, 1500
NONE = np.empty(0, np.int64)
KINDS = [
    ("ivf_flat", "float32", "l2"),
    ("ivf_flat", "float16", "inner_product"),
    ("hnsw", "float32", "cosine"),
    ("hnsw", "int8", "l2"),
    ("sq8", "float32", "cosine"),
    ("pq", "float32", "l2"),
]


class Held:
    """A source in memory whose slots are not consecutive."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.rows = {3 * i + 2: vector for i, vector in enumerate(vectors)}

    @property
    def last(self) -> int:
        return max(self.rows)

    def slots(self) -> np.ndarray:
        return np.array(sorted(self.rows))

    def stream(self, after: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        slots = self.slots()
        slots = slots[slots > after]
        for start in range(0, len(slots), 400):
            yield self.fetch(slots[start : start + 400])

    def fetch(self, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        there = np.array([slot for slot in slots.tolist() if slot in self.rows], np.int64)
        rows = [self.rows[slot] for slot in there.tolist()]
        return there, np.array(rows, np.float32).reshape(-1, DIM)


def clustered(seed: int, count: int = COUNT) -> np.ndarray:
    centres = np.random.default_rng(99).standard_normal((40, DIM))
    rng = np.random.default_rng(seed)
    noise = 0.5 * rng.standard_normal((count, DIM))
    return (centres[rng.integers(0, 40, count)] + noise).astype(np.float32)


def brute_force(
    held: Held, queries: np.ndarray, k: int, metric: Metric, among: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Slots and scores by the definitions, in float64."""
    slots = held.slots() if among is None else among
    base = held.fetch(slots)[1].astype(np.float64)
    wanted = queries.astype(np.float64)
    if metric == "cosine":
        base /= np.linalg.norm(base, axis=1, keepdims=True)
        wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    scores = wanted @ base.T
    if metric == "l2":
        scores = -((wanted[:, None] - base[None]) ** 2).sum(axis=2)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return slots[order], np.take_along_axis(scores, order, axis=1)


def recall(found: np.ndarray, true: np.ndarray) -> float:
    hits = [len({*a} & {*b}) for a, b in zip(found.tolist(), true.tolist(), strict=True)]
    return sum(hits) / true.size


def layered(segment: Segment) -> LayeredIndex:
    alive = Selection.everything(len(segment.slots))
    return LayeredIndex(FlatIndex(DIM, segment.spec.metric), segment, alive)


@pytest.fixture(autouse=True, scope="module")
def _few_is_fewer() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segment_module, "_FEW", 20)
        yield


@pytest.fixture(scope="module")
def held() -> Held:
    return Held(clustered(0))


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def segment(
    request: pytest.FixtureRequest,
    held: Held,
    _few_is_fewer: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Segment:
    kind, storage, metric = request.param
    spec = Spec(kind, storage, metric, DIM)
    return build_segment(spec, held, held.last, lambda: None, tmp_path_factory.mktemp(kind))


QUERIES = clustered(7, 60)


def test_recall_reaches_what_was_asked_for(segment: Segment, held: Held) -> None:
    """Scores are those of the whole vectors whatever the codes are."""
    metric, index = segment.spec.metric, layered(segment)
    for target in (0.6, 0.9, 0.99):
        near = index.search(QUERIES, 10, held, None, SearchParams(recall_target=target))
        true, _ = brute_force(held, QUERIES, 10, metric)
        assert recall(near.slots, true) >= target - 0.03
        assert not near.exact or recall(near.slots, true) == 1
        for query, slots, scores in zip(QUERIES, near.slots, near.scores, strict=True):
            expected = brute_force(held, query[None], 10, metric, np.sort(slots))
            np.testing.assert_allclose(scores, expected[1][0], rtol=1e-5, atol=1e-5)
            assert (np.diff(scores) <= 0).all()


def test_more_effort_finds_more(segment: Segment, held: Held) -> None:
    """Effort comes from the request: two of them at once do not disturb one another."""
    index, metric = layered(segment), segment.spec.metric
    true, _ = brute_force(held, QUERIES, 10, metric)
    if segment.spec.kind == "hnsw":
        few, many = SearchParams(ef=1), SearchParams(ef=400)
    else:
        few, many = SearchParams(nprobe=1), SearchParams(nprobe=10_000)
    first = index.search(QUERIES, 10, held, None, few)
    second = index.search(QUERIES, 10, held, None, many)
    again = index.search(QUERIES, 10, held, None, few)
    assert recall(first.slots, true) <= recall(second.slots, true) >= 0.99
    if segment.spec.kind != "hnsw":
        assert recall(first.slots, true) < 0.98
    assert np.array_equal(first.slots, again.slots)
    assert second.exact == (segment.spec.kind == "ivf_flat" and segment.spec.holds_vectors)


def test_exact_is_exact(segment: Segment, held: Held) -> None:
    metric = segment.spec.metric
    for params in (SearchParams(exact=True), SearchParams(recall_target=1.0)):
        near = layered(segment).search(QUERIES, 15, held, None, params)
        true, scores = brute_force(held, QUERIES, 15, metric)
        assert near.exact
        assert np.array_equal(near.slots, true)
        np.testing.assert_allclose(near.scores, scores, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("share", [0.5, 0.05, 0.005])
def test_recall_with_a_filter(
    segment: Segment, held: Held, rng: np.random.Generator, share: float
) -> None:
    metric = segment.spec.metric
    among = np.sort(rng.permutation(held.slots())[: max(1, int(share * COUNT))])
    near = layered(segment).search(QUERIES, 10, held, among, SearchParams(recall_target=0.95))
    true, _ = brute_force(held, QUERIES, 10, metric, among)
    assert near.slots.shape == true.shape
    assert np.isin(near.slots, among).all()
    assert recall(near.slots, true) >= (1.0 if near.exact else 0.93)


def test_clusters_without_anything_that_may_be_found_are_passed_over(
    segment: Segment, held: Held
) -> None:
    """The clusters that are looked through first have none of the vectors of a filter."""
    metric, index = segment.spec.metric, layered(segment)
    params = SearchParams(ef=1) if segment.spec.kind == "hnsw" else SearchParams(nprobe=1)
    for query in QUERIES[:20]:
        ranked, _ = brute_force(held, query[None], COUNT, metric)
        far = np.sort(ranked[0, COUNT // 2 :])
        near = index.search(query[None], 10, held, far, params)
        assert near.slots.shape == (1, 10)
        assert np.isin(near.slots, far).all()
        assert len(set(near.slots[0].tolist())) == 10
    assert not index.is_damaged


@pytest.mark.parametrize("params", [SearchParams(exact=True), SearchParams(nprobe=10_000)])
def test_equal_scores_come_in_the_order_of_slots(tmp_path: Path, params: SearchParams) -> None:
    """More of them than candidates beyond k."""
    held = Held(np.tile(clustered(0, 30), (50, 1)))
    spec = Spec("ivf_flat", "float32", "l2", DIM)
    segment = build_segment(spec, held, held.last, lambda: None, tmp_path)
    near = layered(segment).search(QUERIES, 20, held, None, params)
    assert near.exact
    assert np.array_equal(near.slots, brute_force(held, QUERIES, 20, "l2")[0])


def test_removed_vectors_are_not_found_and_new_ones_are(segment: Segment, held: Held) -> None:
    """k reaches beyond what a cluster holds: every vector that is there comes back."""
    index, metric = layered(segment), segment.spec.metric
    gone = held.slots()[::2]
    new = clustered(3, 50)
    slots = np.arange(held.last + 1, held.last + 51)
    index = index.changed(slots, new, gone).changed(NONE, new[:0], slots[:5])
    now = Held(np.empty((0, DIM), np.float32))
    kept = zip(held.slots()[1::2], held.fetch(held.slots()[1::2])[1], strict=True)
    now.rows = {**dict(kept), **dict(zip(slots[5:].tolist(), new[5:], strict=True))}
    assert index.count == len(now.rows) == COUNT // 2 + 45
    true, _ = brute_force(now, QUERIES, 10, metric)
    near = index.search(QUERIES, 10, now, None, SearchParams(recall_target=0.95))
    assert recall(near.slots, true) >= 0.93
    exact = index.search(QUERIES, 10, now, None, SearchParams(exact=True))
    assert np.array_equal(exact.slots, true)
    everything = index.search(QUERIES[:2], 5000, now, None, SearchParams())
    assert all(sorted(row) == sorted(now.rows) for row in everything.slots.tolist())


def test_a_new_segment_goes_below_what_came_meanwhile(segment: Segment, held: Held) -> None:
    """Built from a state of the past: what was removed since stays removed."""
    flat = LayeredIndex(FlatIndex(DIM, segment.spec.metric))
    for slots, vectors in held.stream():
        flat = flat.changed(slots, vectors, NONE)
    new, gone = clustered(4, 30), held.slots()[10:20]
    flat = flat.changed(np.arange(held.last + 1, held.last + 31), new, gone)
    flat = flat.changed(NONE, new[:0], np.array([held.last + 3]))
    index = flat.over(segment, 7, np.append(gone, held.last + 3))
    assert (index.count, index.tail.count, index.removed) == (flat.count, 29, 10)
    exact = SearchParams(exact=True)
    if segment.spec.holds_vectors:
        expected = flat.search(QUERIES, 9, held, None, exact)
        found = index.search(QUERIES, 9, held, None, exact)
        assert np.array_equal(found.slots, expected.slots)
        assert np.array_equal(found.scores, expected.scores)


def test_what_a_write_took_away_is_noticed(segment: Segment, held: Held) -> None:
    """The truth, asked where the file of whole vectors cannot be, may have less by then."""
    if segment.spec.holds_vectors:
        pytest.skip("has the vectors in memory")
    fewer = Held(np.empty((0, DIM), np.float32))
    fewer.rows = {slot: v for slot, v in held.rows.items() if slot % 2}
    for params in (SearchParams(), SearchParams(exact=True)):
        expected = layered(segment).search(QUERIES, 10, held, None, params)
        found = layered(segment).search(QUERIES, 10, fewer, None, params)
        assert np.array_equal(found.scores, expected.scores)
        with pytest.raises(ReplacedError):
            layered(replace(segment, rows=None)).search(QUERIES, 10, fewer, None, params)


def test_a_snapshot_is_the_same_index(segment: Segment, held: Held, tmp_path: Path) -> None:
    digest = write_snapshot(tmp_path, segment, 5)
    read, _ = read_snapshot(tmp_path, digest)
    assert read.spec == segment.spec
    assert read.curve == segment.curve
    assert (read.last_slot, read.largest_error) == (segment.last_slot, segment.largest_error)
    before = layered(segment).search(QUERIES, 10, held, None, SearchParams())
    after = layered(read).search(QUERIES, 10, held, None, SearchParams())
    assert np.array_equal(before.slots, after.slots)
    assert np.array_equal(before.scores, after.scores)
    assert np.array_equal(
        segment.engine.vectors(np.arange(9)), read.engine.vectors(np.arange(9))
    )


def test_a_damaged_snapshot_is_never_read(
    held: Held, tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any changed bit, any missing end, any other file: refused before FAISS sees a byte."""
    spec = Spec("sq8", "float32", "l2", DIM)
    segment = build_segment(spec, held, held.last, lambda: None, tmp_path)
    digest = write_snapshot(tmp_path, segment, 5)
    (path,) = tmp_path.glob("index-*.snapshot")
    good = path.read_bytes()

    def parse(_: object) -> None:
        raise AssertionError("FAISS was given bytes that are not ours")

    monkeypatch.setattr(snapshot.faiss, "deserialize_index", parse)
    places = [0, 20, 400, len(good) - 40, len(good) - 1, *rng.integers(0, len(good), 30)]
    for place in places:
        bad = bytearray(good)
        bad[place] ^= 1 << int(rng.integers(0, 8))
        path.write_bytes(bad)
        with pytest.raises(SnapshotError, match="digest"):
            read_snapshot(tmp_path, digest)
    for end in (0, 10, 32, 1000, len(good) - 1):
        path.write_bytes(good[:end])
        with pytest.raises(SnapshotError):
            read_snapshot(tmp_path, digest)
    path.write_bytes(good)
    with pytest.raises(SnapshotError, match="No such file"):
        read_snapshot(tmp_path, "0" * 64)
    other = digest[:16] + "0" * 48
    with pytest.raises(SnapshotError, match="digest"):
        read_snapshot(tmp_path, other)


def test_a_snapshot_of_something_else_is_refused(held: Held, tmp_path: Path) -> None:
    """Its bytes are whole, but its header does not describe its index."""
    spec = Spec("ivf_flat", "float32", "l2", DIM)
    segment = build_segment(spec, held, held.last, lambda: None, tmp_path)
    for wrong in (
        replace(segment, spec=replace(spec, dim=DIM + 1)),
        replace(segment, spec=replace(spec, kind="hnsw")),
        replace(segment, spec=replace(spec, metric="cosine")),
        replace(segment, slots=segment.slots[:-1]),
    ):
        digest = write_snapshot(tmp_path, wrong, 5)
        with pytest.raises(SnapshotError):
            read_snapshot(tmp_path, digest)


def test_a_build_ends_when_told(held: Held, tmp_path: Path) -> None:
    calls = []

    def check() -> None:
        calls.append(1)
        if len(calls) == 5:
            raise Stopped

    with pytest.raises(Stopped):
        build_segment(Spec("ivf_flat", "float32", "l2", DIM), held, held.last, check, tmp_path)
    empty = Held(np.empty((0, DIM), np.float32))
    with pytest.raises(Stopped):
        build_segment(Spec("sq8", "float32", "l2", DIM), empty, 1, lambda: None, tmp_path)
