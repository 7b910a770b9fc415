"""The worker's thread: order of events with gates, not with sleeps."""

import threading
import time

import pytest

from embedkit.errors import Cancelled, DeadlineExceeded, QueueFull, Unavailable
from embedkit.serve.batcher import BatchLimits
from embedkit.serve.job import Priority
from embedkit.serve.observe.record import BatchRecord
from embedkit.serve.running.worker import Worker


class Ticking:
    """A clock that goes on when it is told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


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


def wait_for(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_several_sessions_run_at_the_same_time_and_keep_each_request_in_order(gate):
    worker = Worker([gate, gate], BatchLimits(2, 20, 100), name="test")
    ticket = put(worker, *"abcdef")
    for _ in range(2):
        assert gate.begun.acquire(timeout=10)
    assert not gate.begun.acquire(timeout=0.05)
    gate.may_end.release(3)
    assert rows(ticket.wait()) == list("ABCDEF")
    assert sorted(gate.batches) == [["a", "b"], ["c", "d"], ["e", "f"]]
    assert worker.stop(10)


def test_a_full_batch_is_taken_ahead_and_a_smaller_one_is_not(gate):
    worker = Worker([gate, gate], BatchLimits(2, 20, 100), name="test", prefetch=True)
    tickets = [put(worker, "a")]
    assert gate.begun.acquire(timeout=10)
    tickets.append(put(worker, "b"))
    assert not gate.begun.acquire(timeout=0.05)  # half a batch may still grow
    tickets.append(put(worker, "c"))
    assert gate.begun.acquire(timeout=10)
    tickets.append(put(worker, "d", "e"))
    assert not gate.begun.acquire(timeout=0.05)  # one batch ahead is enough
    gate.may_end.release(3)
    assert [rows(t.wait()) for t in tickets] == [["A"], ["B"], ["C"], ["D", "E"]]
    assert sorted(gate.batches) == [["a"], ["b", "c"], ["d", "e"]]
    assert worker.stop(10)


@pytest.mark.parametrize(("threads", "prefetch"), [(1, False), (3, False), (2, True)])
def test_under_random_load_every_request_gets_its_own_rows(threads, prefetch, rng):
    def run(batch):
        return [n * 2 for s in batch.slices for n in s.payload[s.start : s.stop]]

    turn = threading.Lock()

    def take_turns(batch):
        with turn:
            return run(batch)

    runs = [take_turns if prefetch else run] * threads
    worker = Worker(runs, BatchLimits(8, 1000, 10_000), name="test", prefetch=prefetch)
    sizes = rng.integers(1, 20, (4, 100))

    def ask(which):
        for number, size in enumerate(sizes[which]):
            names = [(which, number, i) for i in range(size)]
            priority = Priority(number % 2)
            job = worker.submit(names, len(names), len(names), priority=priority).wait()
            if rows(job) != [name * 2 for name in names]:
                wrong.append(names)

    wrong = []
    callers = [threading.Thread(target=ask, args=(which,)) for which in range(len(sizes))]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(20)
    assert not wrong
    assert worker.batcher.queued_images == 0
    assert worker.stop(10)


def test_a_batch_that_waited_for_its_session_is_not_timed_meanwhile():
    clock, seen = Ticking(), []
    may_run, turn = threading.Semaphore(0), threading.Lock()

    def run(batch):
        with turn:
            assert may_run.acquire(timeout=10)
            return ["ok"] * batch.size

    worker = Worker(
        [run, run],
        BatchLimits(2, 20, 100),
        name="x",
        prefetch=True,
        observe=seen.append,
        clock=clock,
    )
    tickets = [put(worker, "a", "b"), put(worker, "c", "d")]
    wait_for(lambda: len(worker._running) == 2)
    for ticket in tickets:
        clock.now += 3.0
        may_run.release()
        ticket.wait()
    wait_for(lambda: len(seen) == 2)
    assert [record.seconds for record in seen] == [3.0, 3.0]
    assert worker.pace.image_s == 1.5
    assert worker.stop(10)


def test_a_hopeless_deadline_is_refused_from_what_batches_took_before():
    clock = Ticking()

    def run(batch):
        clock.now += 1.0 * batch.size
        return ["ok"] * batch.size

    worker = Worker([run], BatchLimits(4, 100, 1000), name="x", clock=clock)
    put(worker, *"abcd").wait()
    assert worker.pace.image_s == pytest.approx(1.0)
    with pytest.raises(DeadlineExceeded, match="can be met"):
        put(worker, *"abcd", deadline=clock.now + 2.0)
    with pytest.raises(DeadlineExceeded, match="can be met"):
        worker.check(4, 4, deadline=clock.now + 2.0)
    put(worker, *"abcd", deadline=clock.now + 5.0).wait()
    assert worker.stop(10)


def test_one_that_is_asked_alone_passes_a_full_line(worker, gate):
    put(worker, "a")
    assert gate.begun.acquire(timeout=10)
    for _ in range(2):
        put(worker, *"bcde")
    answers = []
    asking = threading.Thread(target=lambda: answers.append(worker.ask_alone(["x"], 10)))
    asking.start()
    wait_for(lambda: worker.batcher._alone)
    gate.may_end.release(2)
    asking.join(10)
    assert rows(answers[0]) == ["X"]
    assert gate.batches[1] == ["x"]


def test_one_that_is_asked_alone_is_no_callers_work():
    seen = []
    worker = Worker(
        [lambda batch: ["ok"] * batch.size],
        BatchLimits(4, 8, 100),
        name="x",
        observe=seen.append,
    )
    worker.ask_alone(["canary"], 10)
    put(worker, "a", "b").wait()
    assert worker.stop(10)
    assert [record.size for record in seen] == [2]


def test_one_that_is_asked_alone_does_not_wait_for_ever(worker, gate):
    put(worker, "a")
    assert gate.begun.acquire(timeout=10)
    with pytest.raises(DeadlineExceeded):
        worker.ask_alone(["x"], 0.02)
    assert worker.longest_s > 0.02
    gate.may_end.release()
    wait_for(lambda: worker.longest_s == 0)
    assert gate.batches == [["a"]]


def test_an_abandoned_worker_tells_everybody_and_its_thread_ends(gate):
    worker = Worker([gate], BatchLimits(4, 8, 100), name="test")
    tickets = [put(worker, "a")]
    assert gate.begun.acquire(timeout=10)
    tickets += [put(worker, "b"), put(worker, *"cdefgh")]
    worker.abandon("being restarted")
    for ticket in tickets:
        with pytest.raises(Unavailable, match="being restarted"):
            ticket.wait()
    for refused in (lambda: put(worker, "i"), lambda: worker.ask_alone(["x"], 1)):
        with pytest.raises(Unavailable, match="being restarted"):
            refused()
    assert worker.stop(0)
    assert worker.longest_s == 0
    gate.may_end.release()
    worker._threads[0].join(10)
    assert not worker._threads[0].is_alive()
    assert worker.pace.image_s == 0
    assert gate.batches == [["a"]]


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
