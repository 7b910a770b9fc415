"""The batch rule on a fake clock: examples, then properties over random traffic."""

import pytest

from embedkit.errors import (
    Cancelled,
    DeadlineExceeded,
    InvalidInput,
    MessageTooLarge,
    QueueFull,
)
from embedkit.serve.batcher import BatchLimits
from embedkit.serve.job import Priority
from tests.serve.line import BULK, Line, answers, names


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
