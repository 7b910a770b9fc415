"""The batcher under random traffic: nothing is lost, reordered, over a limit or late."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.errors import (
    DeadlineExceeded,
    MessageTooLarge,
    QueueFull,
)
from embedkit.serve.batcher import BatchLimits
from embedkit.serve.job import Batch, Job, Priority
from tests.serve.line import Line, answers, names


def test_without_an_estimate_or_a_deadline_nothing_is_refused():
    line = Line()
    line.offer("a", 50)
    line.offer("b", 1, deadline=line.clock.now + 1e-6)
    line.offer("c", 1, image_s=1e6)


def test_a_deadline_is_checked_before_decoding_too():
    line = Line()
    line.offer("a", 50)
    line.batcher.check(1, 1, deadline=line.clock.now + 1, image_s=0.01)
    with pytest.raises(DeadlineExceeded, match="51 images to run first at 10 images/s"):
        line.batcher.check(1, 1, deadline=line.clock.now + 1, image_s=0.1)


@settings(max_examples=300, deadline=None)
@given(
    ahead=st.lists(st.tuples(st.integers(1, 9), st.booleans()), max_size=8),
    request=st.tuples(st.integers(1, 6), st.booleans()),
    size=st.integers(1, 8),
    share=st.floats(0.05, 0.95),
    seconds=st.integers(1, 60),
)
def test_what_would_have_been_done_in_time_is_never_refused(
    ahead, request, size, share, seconds
):
    """The engine takes exactly 1 s per image; whoever is refused had less time than needed."""
    line = Line(BatchLimits(size, 1000, 10_000, bulk_share=share))
    for index, (count, is_bulk) in enumerate(ahead):
        line.offer(f"{index}:", count, priority=Priority(is_bulk))
    count, is_bulk = request
    end = line.clock.now + seconds
    try:
        line.offer("x", count, deadline=end, priority=Priority(is_bulk), image_s=1.0)
    except DeadlineExceeded:
        job = line.offer("x", count, priority=Priority(is_bulk))
        while not job.is_finished:
            batch = line.take()
            line.clock.now += batch.size
            line.batcher.settle(batch, names(batch))
        assert line.clock.now > end


@settings(max_examples=200, deadline=None)
@given(
    share=st.floats(0.02, 0.98),
    size=st.integers(1, 9),
    widths=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    rounds=st.integers(1, 40),
)
def test_neither_lane_starves_and_each_gets_its_share(share, size, widths, rounds):
    line = Line(BatchLimits(size, 10_000, 100_000, bulk_share=share, bulk_room=1.0))
    taken = {"i": 0, "b": 0}
    for _ in range(rounds):
        for name, width, priority in zip("ib", widths, Priority, strict=True):
            lane = line.batcher._bulk if priority else line.batcher._interactive
            while lane.images < size:
                line.offer(name, width, priority=priority)
        batch = line.take()
        assert batch.size == size
        for name in names(batch):
            taken[name[0]] += 1
    images = rounds * size
    assert abs(taken["b"] - share * images) <= 1 + 1e-6 * rounds
    assert taken["i"] + taken["b"] == images


# Random traffic: offers of any size and deadline, cancellations, the clock going on, an engine
# that takes and returns batches at any time.
steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("offer"), st.integers(1, 9), st.none() | st.integers(1, 5), st.booleans()
        ),
        st.tuples(st.just("alone"), st.none() | st.integers(1, 5)),
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
        self.canaries: list[Job] = []
        self.running: list[Batch] = []
        self.ran: list[str] = []
        for name, *values in script:
            getattr(self, f"do_{name}")(*values)
            self.check_line()
        while self.batcher.ready_in() is not None:
            self.clock.now += self.batcher.ready_in() or 0
            self.do_take()
        while self.running:
            self.do_settle(0)

    def do_offer(self, count: int, patience: int | None, is_bulk: bool) -> None:
        deadline = None if patience is None else self.clock.now + patience
        queued, priority = self.batcher.queued_images, Priority(is_bulk)
        name = f"{len(self.jobs)}:"
        try:
            self.jobs.append(self.offer(name, count, deadline=deadline, priority=priority))
        except QueueFull:
            room = self.limits.max_queue_images * (self.limits.bulk_room if is_bulk else 1)
            assert queued + count > int(room)
        except MessageTooLarge:
            assert count > self.limits.max_queue_images

    def do_alone(self, patience: int | None) -> None:
        deadline = None if patience is None else self.clock.now + patience
        self.canaries.append(self.alone("canary", deadline))

    def do_cancel(self, index: int) -> None:
        if index < len(self.jobs):
            self.batcher.cancel(self.jobs[index])

    def do_tick(self, seconds: int) -> None:
        self.clock.now += seconds

    def do_take(self) -> None:
        ready, queued = self.batcher.ready_in(), self.batcher.queued_images
        batch = self.batcher.take()
        if batch is None:
            return
        assert ready == 0
        assert 1 <= batch.size <= self.limits.max_batch_size
        assert len(names(batch)) == batch.size
        for s in batch.slices:
            assert s.job.deadline is None or s.job.deadline > self.clock.now
            assert not s.job.is_finished
        if names(batch) != ["canary0"]:
            assert "canary0" not in names(batch)
            self.ran += names(batch)
            gone = queued - self.batcher.queued_images - batch.size
            # Whatever is left did not fit: no lane's unused share is lost.
            assert batch.size == self.limits.max_batch_size or not self.batcher.queued_images
            assert gone >= 0
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
    ran = [tuple(map(int, name.split(":"))) for name in traffic.ran]
    for priority in Priority:
        lane = [name for name in ran if traffic.jobs[name[0]].priority is priority]
        assert lane == sorted(lane)
    everybody = [*traffic.jobs, *traffic.canaries]
    assert sorted(map(id, traffic.finished)) == sorted(map(id, everybody))
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
