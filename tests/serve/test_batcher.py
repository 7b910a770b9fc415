"""The batch rule on a fake clock: examples, then properties over random traffic."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.errors import (
    Cancelled,
    DeadlineExceeded,
    InvalidInput,
    MessageTooLarge,
    QueueFull,
)
from embedkit.serve.batcher import Batcher, BatchLimits
from embedkit.serve.job import Batch, Job


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Line:
    """A batcher whose payloads are the images' own names, and whose finished jobs are kept."""

    limits: BatchLimits = field(default_factory=lambda: BatchLimits(4, 100, 1000))
    clock: Clock = field(default_factory=Clock)
    finished: list[Job] = field(default_factory=list)
    batcher: Batcher = field(init=False)

    def __post_init__(self) -> None:
        self.batcher = Batcher(self.limits, self.clock)

    def offer(
        self,
        name: str,
        count: int = 1,
        size: int | None = None,
        deadline: float | None = None,
    ) -> Job:
        images = [f"{name}{i}" for i in range(count)]
        size_bytes = count if size is None else size
        return self.batcher.offer(
            images, count, size_bytes, deadline=deadline, on_finish=self.finished.append
        )

    def take(self) -> Batch:
        batch = self.batcher.take()
        assert batch is not None
        return batch


def names(batch: Batch | None) -> list[str]:
    assert batch is not None
    return [name for s in batch.slices for name in s.payload[s.start : s.stop]]


def answers(job: Job) -> list[str]:
    assert job.error is None
    return [(p.result or [])[p.row + i] for p in job.parts for i in range(p.stop - p.start)]


def test_an_idle_engine_gets_a_lone_request_at_once():
    line = Line()
    assert line.batcher.ready_in() is None
    assert line.batcher.take() is None
    line.offer("a")
    assert line.batcher.ready_in() == 0
    assert names(line.batcher.take()) == ["a0"]
    assert line.batcher.take() is None


def test_small_requests_merge_in_order_and_large_ones_split():
    line = Line()
    line.offer("a", 2)
    line.offer("b", 5)
    line.offer("c", 1)
    taken = [names(line.batcher.take()) for _ in range(2)]
    assert taken == [["a0", "a1", "b0", "b1"], ["b2", "b3", "b4", "c0"]]


def test_the_window_counts_from_the_first_request_of_the_batch():
    line = Line(BatchLimits(4, 100, 1000, window_s=0.010))
    line.offer("a")
    line.clock.now += 0.006
    line.offer("b")
    assert line.batcher.take() is None
    assert line.batcher.ready_in() == pytest.approx(0.004)
    line.clock.now += 0.005
    assert names(line.batcher.take()) == ["a0", "b0"]


def test_a_full_batch_does_not_wait_for_the_window():
    line = Line(BatchLimits(4, 100, 1000, window_s=10))
    line.offer("a", 6)
    assert names(line.batcher.take()) == ["a0", "a1", "a2", "a3"]
    assert line.batcher.take() is None
    line.clock.now += 10
    assert names(line.batcher.take()) == ["a4", "a5"]


def test_parts_that_come_back_out_of_order_are_put_in_order():
    line = Line()
    job = line.offer("a", 6)
    first, second = line.take(), line.take()
    line.batcher.settle(second, names(second))
    assert not job.is_finished
    line.batcher.settle(first, names(first))
    assert answers(job) == [f"a{i}" for i in range(6)]
    assert (job.largest_batch, line.finished) == (4, [job])


def test_expired_requests_never_run():
    line = Line()
    late = line.offer("late", deadline=100.5)
    good = line.offer("good", deadline=102.0)
    line.clock.now = 100.5
    assert names(line.batcher.take()) == ["good0"]
    assert isinstance(late.error, DeadlineExceeded)
    assert line.finished == [late]
    assert not good.is_finished
    assert late.payload is None


def test_a_line_of_expired_requests_gives_no_batch():
    line = Line()
    line.offer("late", 3, deadline=101.0)
    line.clock.now = 102.0
    assert line.batcher.take() is None
    assert line.batcher.queued_images == 0


def test_what_is_expired_on_arrival_does_not_stand_in_line():
    line = Line()
    with pytest.raises(DeadlineExceeded, match="on arrival"):
        line.offer("a", deadline=100.0)
    assert line.batcher.queued_images == 0


def test_the_rest_of_a_split_request_expires_too():
    line = Line()
    job = line.offer("a", 6, deadline=101.0)
    batch = line.take()
    line.clock.now = 101.0
    assert line.batcher.take() is None
    assert isinstance(job.error, DeadlineExceeded)
    line.batcher.settle(batch, names(batch))
    assert line.finished == [job]
    assert not job.parts


def test_cancelled_requests_never_run_and_give_their_room_back():
    line = Line()
    a, b = line.offer("a", 3), line.offer("b", 2)
    assert line.batcher.cancel(a)
    assert not line.batcher.cancel(a)
    assert isinstance(a.error, Cancelled)
    assert line.batcher.queued_images == 2
    assert line.batcher.queued_bytes == 2
    assert names(line.batcher.take()) == ["b0", "b1"]
    line.batcher.cancel(b)
    assert line.finished == [a, b]


def test_the_line_is_bounded_in_images():
    line = Line(BatchLimits(2, 4, 1000))
    line.offer("a", 3)
    with pytest.raises(QueueFull, match="3 of 4 waiting"):
        line.offer("b", 2)
    line.offer("c", 1)
    line.batcher.take()
    line.offer("d", 2)
    assert line.batcher.queued_images == 4


def test_the_line_is_bounded_in_bytes():
    line = Line(BatchLimits(2, 100, 10))
    line.offer("a", 4, size=8)
    with pytest.raises(QueueFull, match="8 of 10"):
        line.offer("b", 1, size=3)
    line.batcher.take()
    assert line.batcher.queued_bytes == 4
    line.offer("b", 1, size=6)


@pytest.mark.parametrize(("count", "size"), [(101, 1), (1, 1001)])
def test_a_request_that_never_fits_is_not_told_to_retry(count, size):
    with pytest.raises(MessageTooLarge, match="send several requests"):
        Line().offer("a", count, size)


def test_a_request_without_images_is_refused():
    with pytest.raises(InvalidInput, match="at least one image"):
        Line().offer("a", 0)


@pytest.mark.parametrize(
    "values",
    [
        {"max_batch_size": 0},
        {"max_batch_size": 5, "max_queue_images": 4},
        {"max_queue_bytes": 0},
        {"window_s": -1.0},
    ],
)
def test_limits_that_can_never_be_met_are_refused(values):
    with pytest.raises(InvalidInput, match="expected"):
        BatchLimits(**values)


def test_a_failure_reaches_exactly_the_images_of_its_batch():
    line = Line()
    job = line.offer("a", 6)
    first, second = line.take(), line.take()
    line.batcher.settle(first, names(first))
    broken = RuntimeError("broken")
    line.batcher.settle(second, error=broken)
    assert [(p.start, p.stop, p.error) for p in job.parts] == [(0, 4, None), (4, 6, broken)]


def test_halves_cut_through_a_request_and_keep_the_order():
    line = Line(BatchLimits(8, 100, 1000))
    line.offer("a", 1)
    line.offer("b", 4)
    line.offer("c", 2)
    batch = line.take()
    left, right = batch.halves()
    assert (names(left), names(right)) == (["a0", "b0", "b1"], ["b2", "b3", "c0", "c1"])
    assert (left.size, right.size) == (3, 4)


# Random traffic: offers of any size and deadline, cancellations, the clock going on, an engine
# that takes and returns batches at any time.
steps = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), st.integers(1, 9), st.none() | st.integers(1, 5)),
        st.tuples(st.just("cancel"), st.integers(0, 20)),
        st.tuples(st.just("tick"), st.integers(1, 3)),
        st.tuples(st.just("take")),
        st.tuples(st.just("settle"), st.integers(0, 5)),
    ),
    max_size=60,
)


class Traffic(Line):
    """Plays steps and checks every promise of the batcher on the way."""

    def play(self, script: list[tuple]) -> None:
        self.jobs: list[Job] = []
        self.running: list[Batch] = []
        self.ran: list[str] = []
        for name, *values in script:
            getattr(self, f"do_{name}")(*values)
            self.check_line()
        while self.batcher.queued_images:
            self.clock.now += self.batcher.ready_in() or 0
            self.do_take()
        while self.running:
            self.do_settle(0)

    def do_offer(self, count: int, patience: int | None) -> None:
        deadline = None if patience is None else self.clock.now + patience
        queued = self.batcher.queued_images
        try:
            self.jobs.append(self.offer(f"{len(self.jobs)}:", count, deadline=deadline))
        except QueueFull:
            assert queued + count > self.limits.max_queue_images
        except MessageTooLarge:
            assert count > self.limits.max_queue_images

    def do_cancel(self, index: int) -> None:
        if index < len(self.jobs):
            self.batcher.cancel(self.jobs[index])

    def do_tick(self, seconds: int) -> None:
        self.clock.now += seconds

    def do_take(self) -> None:
        ready = self.batcher.ready_in()
        batch = self.batcher.take()
        if batch is None:
            return
        assert ready == 0
        assert 1 <= batch.size <= self.limits.max_batch_size
        assert len(names(batch)) == batch.size
        for s in batch.slices:
            assert s.job.deadline is None or s.job.deadline > self.clock.now
            assert not s.job.is_finished
        self.ran += names(batch)
        self.running.append(batch)

    def do_settle(self, index: int) -> None:
        if index < len(self.running):
            batch = self.running.pop(index)
            self.batcher.settle(batch, names(batch))

    def check_line(self) -> None:
        assert 0 <= self.batcher.queued_images <= self.limits.max_queue_images
        assert 0 <= self.batcher.queued_bytes <= self.limits.max_queue_bytes
        first = self.batcher.ready_in()
        assert first is None or first <= self.limits.window_s


@settings(max_examples=300, deadline=None)
@given(script=steps, batch=st.integers(1, 5), room=st.integers(5, 12), window=st.integers(0, 2))
def test_nothing_is_lost_duplicated_reordered_or_over_the_limit(script, batch, room, window):
    traffic = Traffic(BatchLimits(batch, room, 1000, float(window)))
    traffic.play(script)

    assert len(traffic.ran) == len(set(traffic.ran))
    in_line_order = [tuple(map(int, name.split(":"))) for name in traffic.ran]
    assert in_line_order == sorted(in_line_order)
    assert sorted(map(id, traffic.finished)) == sorted(map(id, traffic.jobs))
    for index, job in enumerate(traffic.jobs):
        if job.error is None:
            assert answers(job) == [f"{index}:{i}" for i in range(job.count)]
    assert (traffic.batcher.queued_images, traffic.batcher.queued_bytes) == (0, 0)


@settings(max_examples=200, deadline=None)
@given(sizes=st.lists(st.integers(1, 7), min_size=1, max_size=10), limit=st.integers(1, 8))
def test_the_engine_is_never_idle_and_batches_are_as_full_as_they_can_be(sizes, limit):
    line = Line(BatchLimits(limit, 100, 1000))
    for index, count in enumerate(sizes):
        line.offer(f"{index}:", count)
    left = sum(sizes)
    while left:
        batch = line.take()
        assert batch.size == min(limit, left)
        left -= batch.size


@settings(max_examples=200, deadline=None)
@given(sizes=st.lists(st.integers(1, 7), min_size=1, max_size=10))
def test_halves_cover_every_image_once_in_order(sizes):
    line = Line(BatchLimits(100, 100, 1000))
    for index, count in enumerate(sizes):
        line.offer(f"{index}:", count)
    batch = line.take()
    if batch.size < 2:
        return
    left, right = batch.halves()
    assert names(left) + names(right) == names(batch)
    assert left.size == len(names(left)) == batch.size // 2
    assert right.size == len(names(right))
