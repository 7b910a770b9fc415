"""The pool behind gRPC: order, bounds, shedding, survival."""

import threading

import pytest

from embedkit.errors import InvalidInput
from embedkit.serve.handlers import HandlerPool, is_shedding


@pytest.fixture
def gate():
    gate = threading.Event()
    yield gate
    gate.set()


def test_tasks_run_with_their_arguments():
    pool, seen, done = HandlerPool(2), [], threading.Semaphore(0)

    def task(a, *, b):
        seen.append((a, b, is_shedding()))
        done.release()

    for i in range(50):
        pool.submit(task, i, b=-i)
    for _ in range(50):
        assert done.acquire(timeout=10)
    pool.shutdown()
    assert sorted(seen) == [(i, -i, False) for i in range(50)]


def test_the_thread_that_finished_last_goes_on_first():
    pool, done = HandlerPool(8), threading.Semaphore(0)
    used = []

    def task():
        used.append(threading.current_thread().name)
        done.release()

    for _ in range(20):
        pool.submit(task)
        assert done.acquire(timeout=10)
        while len(pool._handlers._idle) < len(pool._handlers._threads):
            pass
    pool.shutdown()
    assert len(set(used)) == 1


def test_no_more_threads_than_asked_for(gate):
    pool, lock, started = HandlerPool(3, 100), threading.Lock(), threading.Semaphore(0)
    running = [0, 0]

    def task():
        with lock:
            running[0] += 1
            running[1] = max(running)
        started.release()
        gate.wait(10)
        with lock:
            running[0] -= 1

    for _ in range(10):
        pool.submit(task)
    for _ in range(3):
        assert started.acquire(timeout=10)
    gate.set()
    for _ in range(7):
        assert started.acquire(timeout=10)
    pool.shutdown()
    assert running == [0, 3]


def test_what_exceeds_the_backlog_runs_at_once_and_knows_that_it_must_refuse(gate):
    pool, seen, done = HandlerPool(1, backlog=1), [], threading.Semaphore(0)

    def refused():
        seen.append(("shed", is_shedding()))
        done.release()

    pool.submit(gate.wait, 10)
    pool.submit(lambda: seen.append(("waited", is_shedding())))
    pool.submit(refused)
    assert done.acquire(timeout=10)
    assert seen == [("shed", True)]
    gate.set()
    pool.shutdown()
    assert seen[1:] == [("waited", False)]


def test_a_task_that_raises_does_not_cost_a_thread(caplog):
    pool, done = HandlerPool(1), threading.Semaphore(0)

    def fail():
        raise SystemExit("out of a handler")

    pool.submit(fail)
    pool.submit(done.release)
    assert done.acquire(timeout=10)
    pool.shutdown()
    assert "failed outside" in caplog.text


def test_a_future_forgets_who_waits_for_it():
    pool = HandlerPool(1)
    called: list[object] = []
    pool.submit(int).add_done_callback(called.append)
    pool.shutdown()
    assert called == []


@pytest.mark.parametrize(("threads", "backlog"), [(0, 1), (1, -1)])
def test_sizes_out_of_range_are_refused(threads, backlog):
    with pytest.raises(InvalidInput, match="expected threads"):
        HandlerPool(threads, backlog)
