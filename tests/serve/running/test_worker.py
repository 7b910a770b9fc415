"""The worker's thread: order of events with gates, not with sleeps."""

import threading
import time

import pytest

from embedkit.errors import Cancelled, DeadlineExceeded, QueueFull, Unavailable
from embedkit.serve.batcher import BatchLimits
from embedkit.serve.observe.record import BatchRecord
from embedkit.serve.running.worker import Worker


class Gate:
    """A run that says when it begins and waits until it may end."""

    def __init__(self):
        self.begun = threading.Semaphore(0)
        self.may_end = threading.Semaphore(0)
        self.batches = []

    def __call__(self, batch):
        rows = [n for s in batch.slices for n in s.payload[s.start : s.stop]]
        self.batches.append(rows)
        self.begun.release()
        assert self.may_end.acquire(timeout=10)
        return [row.upper() for row in rows]


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def worker(gate):
    worker = Worker([gate], BatchLimits(4, 8, 100), name="test")
    yield worker
    for _ in range(100):
        gate.may_end.release()
    assert worker.stop(10)


def put(worker, *names, **kw):
    return worker.submit(list(names), len(names), len(names), **kw)


def rows(job):
    return [p.result[p.row + i] for p in job.parts for i in range(p.stop - p.start)]


def test_what_queues_while_the_engine_is_busy_runs_together(worker, gate):
    first = put(worker, "a")
    assert gate.begun.acquire(timeout=10)
    others = [put(worker, "b"), put(worker, "c", "d")]
    gate.may_end.release(2)
    assert rows(first.wait()) == ["A"]
    assert [rows(t.wait()) for t in others] == [["B"], ["C", "D"]]
    assert gate.batches == [["a"], ["b", "c", "d"]]


def test_a_cancelled_ticket_wakes_its_waiter_and_never_runs(worker, gate):
    put(worker, "a")
    assert gate.begun.acquire(timeout=10)
    ticket = put(worker, "b")
    ticket.cancel()
    with pytest.raises(Cancelled):
        ticket.wait()
    gate.may_end.release()
    last = put(worker, "c")
    gate.may_end.release()
    last.wait()
    assert gate.batches == [["a"], ["c"]]


def test_a_waiter_is_let_go_at_its_deadline_although_the_engine_is_stuck(worker, gate):
    running = put(worker, "a", deadline=time.monotonic() + 0.05)
    queued = put(worker, "b", deadline=time.monotonic() + 0.05)
    for ticket in (queued, running):
        with pytest.raises(DeadlineExceeded):
            ticket.wait()
    gate.may_end.release()
    last = put(worker, "c")
    gate.may_end.release()
    last.wait()
    assert ["b"] not in gate.batches


def test_a_full_queue_is_an_answer_and_not_a_wait(worker, gate):
    put(worker, "a")
    assert gate.begun.acquire(timeout=10)
    for _ in range(2):
        put(worker, *"bcde")
    with pytest.raises(QueueFull):
        put(worker, "f")
    with pytest.raises(QueueFull):
        worker.check(1, 1)


def test_stopping_finishes_what_is_queued_and_refuses_the_rest(gate):
    worker = Worker([gate], BatchLimits(4, 8, 100), name="test")
    running = put(worker, "a")
    assert gate.begun.acquire(timeout=10)
    queued = put(worker, "b")
    assert not worker.stop(0.01)
    with pytest.raises(Unavailable, match="unloaded"):
        put(worker, "c")
    gate.may_end.release(2)
    assert worker.stop(10)
    assert rows(running.wait()) == ["A"]
    assert rows(queued.wait()) == ["B"]


def test_a_failing_run_does_not_end_the_thread(caplog):
    def run(batch):
        if any("bad" in s.payload for s in batch.slices):
            raise RuntimeError("no")
        return ["ok"] * batch.size

    worker = Worker([run], BatchLimits(4, 8, 100), name="test")
    bad = put(worker, "bad").wait()
    assert [str(p.error) for p in bad.parts] == ["no"]
    assert rows(put(worker, "good").wait()) == ["ok"]
    assert worker.stop(10)
    assert "batch of 1 failed" in caplog.text


def test_each_batch_is_reported_with_its_size_and_reruns():
    seen: list[BatchRecord] = []

    def run(batch):
        if any("bad" in s.payload[s.start : s.stop] for s in batch.slices):
            raise RuntimeError("no")
        return ["ok"] * batch.size

    worker = Worker([run], BatchLimits(4, 8, 100), name="tiny", observe=seen.append)
    put(worker, "a", "bad", "c").wait()
    assert worker.stop(10)
    assert [(r.model, r.size) for r in seen] == [("tiny", 3)]
    assert seen[0].reruns > 0
    assert seen[0].seconds > 0


def test_a_failure_outside_the_model_does_not_end_the_thread(caplog):
    seen: list[BatchRecord] = []

    def observe(record):
        seen.append(record)
        if len(seen) == 1:
            raise RuntimeError("no disk")

    worker: Worker[list[str], list[str]] = Worker(
        [lambda batch: ["ok"] * batch.size], BatchLimits(4, 8, 100), name="x", observe=observe
    )
    assert rows(put(worker, "a").wait()) == ["ok"]
    assert rows(put(worker, "b").wait()) == ["ok"]
    assert worker.stop(10)
    assert "outside the model" in caplog.text
