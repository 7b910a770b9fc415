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
from embedkit.serve.job import Batch, Job, Priority

BULK = Priority.BULK


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
        priority: Priority = Priority.INTERACTIVE,
        image_s: float = 0.0,
    ) -> Job:
        images = [f"{name}{i}" for i in range(count)]
        size_bytes = count if size is None else size
        return self.batcher.offer(
            images,
            count,
            size_bytes,
            priority=priority,
            deadline=deadline,
            image_s=image_s,
            on_finish=self.finished.append,
        )

    def alone(self, name: str, deadline: float | None = None) -> Job:
        return self.batcher.offer_alone(
            [f"{name}0"], deadline=deadline, on_finish=self.finished.append
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


def test_a_cancelled_request_does_not_begin_the_window():
    line = Line(BatchLimits(4, 100, 1000, window_s=0.010))
    first = line.offer("a")
    line.clock.now += 0.006
    line.offer("b", priority=BULK)
    line.offer("c")
    line.batcher.cancel(first)
    assert line.batcher.ready_in() == pytest.approx(0.010)


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
        {"bulk_share": 0.0},
        {"bulk_share": 1.0},
        {"bulk_room": 0.0},
        {"bulk_room": 1.5},
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


def test_bulk_gets_its_share_of_each_batch_and_interactive_the_rest():
    line = Line(BatchLimits(10, 100, 1000, bulk_share=0.2))
    line.offer("b", 20, priority=BULK)
    line.offer("i", 20)
    for start in (0, 8):
        taken = names(line.take())
        assert taken[:8] == [f"i{start + i}" for i in range(8)]
        assert taken[8:] == [f"b{start // 4 + i}" for i in range(2)]


def test_what_one_lane_leaves_the_other_gets():
    line = Line(BatchLimits(10, 100, 1000, bulk_share=0.2))
    line.offer("b", 12, priority=BULK)
    line.offer("i", 3)
    assert names(line.take()) == ["i0", "i1", "i2", *(f"b{i}" for i in range(7))]
    line.offer("j", 6)
    assert names(line.take()) == [
        *(f"j{i}" for i in range(6)),
        *(f"b{i}" for i in range(7, 11)),
    ]
    assert names(line.take()) == ["b11"]


def test_room_that_expired_bulk_leaves_is_filled():
    line = Line(BatchLimits(10, 100, 1000, bulk_share=0.5))
    line.offer("b", 9, priority=BULK, deadline=101.0)
    line.offer("i", 9)
    line.clock.now = 101.0
    assert names(line.take()) == [f"i{i}" for i in range(9)]
    assert line.batcher.queued_images == 0


def test_a_share_below_one_image_is_saved_up_but_not_hoarded():
    line = Line(BatchLimits(1, 100, 1000, bulk_share=0.25))
    line.offer("i", 8)
    line.offer("b", 4, priority=BULK)
    taken = "".join(names(line.take())[0][0] for _ in range(8))
    assert taken == "iiibiiib"
    line.batcher.cancel_all(Cancelled("enough"))
    # A bulk lane that was empty most of the time has no claim to what ran meanwhile.
    for _ in range(10):
        line.offer("i", 2)
        line.take()
        line.take()
    line.offer("i", 3)
    line.offer("b", 3, priority=BULK)
    assert "".join(names(line.take())[0][0] for _ in range(4)) == "iiib"


def test_bulk_leaves_room_for_interactive_requests():
    line = Line(BatchLimits(4, 8, 1000, bulk_room=0.5))
    line.offer("b", 3, priority=BULK)
    with pytest.raises(QueueFull, match="3 of 4 bulk waiting"):
        line.offer("c", 2, priority=BULK)
    line.offer("i", 5)
    with pytest.raises(QueueFull, match="8 of 8 waiting"):
        line.offer("j", 1)


def test_a_large_bulk_request_fits_into_a_line_without_bulk():
    line = Line(BatchLimits(4, 8, 1000, bulk_room=0.5))
    line.offer("b", 8, priority=BULK)
    assert line.batcher.queued_images == 8


def test_bulk_is_bounded_in_bytes_too():
    line = Line(BatchLimits(4, 8, 100, bulk_room=0.5))
    line.offer("b", 1, size=40, priority=BULK)
    with pytest.raises(QueueFull, match="40 of 50 bulk"):
        line.offer("c", 1, size=20, priority=BULK)
    line.offer("i", 1, size=60)


def test_one_that_goes_alone_goes_first_and_needs_no_room():
    line = Line(BatchLimits(2, 2, 2, window_s=50.0))
    line.offer("a", 1)
    line.offer("b", 1)
    job = line.alone("canary")
    assert line.batcher.queued_images == 2
    batch = line.take()
    assert names(batch) == ["canary0"]
    line.batcher.settle(batch, names(batch))
    assert answers(job) == ["canary0"]
    assert names(line.take()) == ["a0", "b0"]
    line.alone("late", deadline=101.0)
    line.alone("gone")
    line.batcher.cancel(line.alone("also"))
    line.batcher.cancel_all(Cancelled("gone"))
    assert line.batcher.ready_in() is None


def test_one_that_goes_alone_is_dropped_when_expired():
    line = Line()
    line.offer("a")
    job = line.alone("canary", deadline=101.0)
    line.clock.now = 101.0
    assert names(line.take()) == ["a0"]
    assert isinstance(job.error, DeadlineExceeded)


def test_everybody_in_line_can_be_told_at_once():
    line = Line()
    jobs = [line.offer("a", 6), line.offer("b", 2, priority=BULK), line.alone("c")]
    line.batcher.take()
    line.batcher.take()
    reason = RuntimeError("restart")
    line.batcher.cancel_all(reason)
    assert [job.error for job in jobs] == [reason, reason, None]
    assert (line.batcher.queued_images, line.batcher.queued_bytes) == (0, 0)


def test_many_cancelled_requests_do_not_pile_up():
    line = Line(BatchLimits(4, 1000, 10_000))
    line.offer("first")
    for index in range(1000):
        line.batcher.cancel(line.offer(f"{index}:"))
    line.offer("last")
    assert len(line.batcher._interactive._jobs) < 200
    assert names(line.take()) == ["first0", "last0"]


@pytest.mark.parametrize(
    ("priority", "ahead", "bulk", "count", "images"),
    [
        # In a line of its own kind a request waits for all that came before it.
        (Priority.INTERACTIVE, 10, 0, 2, 12),
        (BULK, 0, 10, 2, 12),
        # While both wait, the other lane gets its share and no more.
        (Priority.INTERACTIVE, 8, 90, 1, 10),
        (BULK, 90, 1, 1, 5),
        # But never more than it has.
        (Priority.INTERACTIVE, 8, 1, 1, 10),
        (BULK, 2, 4, 1, 7),
    ],
)
def test_a_deadline_that_cannot_be_met_is_refused_at_once(priority, ahead, bulk, count, images):
    """At 1 s per image, ``images`` have to run before the request is done."""

    def ask(seconds: float) -> None:
        line = Line(BatchLimits(4, 100, 1000))
        if ahead:
            line.offer("i", ahead)
        if bulk:
            line.offer("b", bulk, priority=BULK)
        queued = line.batcher.queued_images
        deadline = line.clock.now + seconds
        try:
            line.offer("x", count, deadline=deadline, priority=priority, image_s=1.0)
        except DeadlineExceeded:
            assert line.batcher.queued_images == queued
            raise

    ask(images / 1.25 + 0.01)
    with pytest.raises(DeadlineExceeded, match=r"can be met.*allow more time"):
        ask(images / 1.25 - 0.1)


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
