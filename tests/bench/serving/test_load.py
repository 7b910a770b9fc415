"""The loops against a sender whose server is a queue and a thread with a known service time."""

import queue
import threading
import time

import numpy as np
import pytest

from embedkit.bench.serving.load import Reply, run_closed, run_open
from embedkit.errors import Unavailable


class LineServer:
    """Answers one call after another, each after ``service_s``; stalls once if told to."""

    def __init__(self, service_s, *, code="OK", stall=None):
        self._service_s, self._code, self._stall = service_s, code, stall
        self._line = queue.SimpleQueue()
        self.most, self._waiting = 0, 0
        self._began = time.perf_counter()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def send(self, done):
        self._waiting += 1
        self.most = max(self.most, self._waiting)
        self._line.put(done)

    def close(self):
        self._line.put(None)
        self._thread.join()

    def _run(self):
        while (done := self._line.get()) is not None:
            time.sleep(self._service_s)
            if self._stall and time.perf_counter() - self._began > self._stall[0]:
                time.sleep(self._stall[1])
                self._stall = None
            self._waiting -= 1
            done(Reply(self._code, 4))


@pytest.fixture
def serve():
    servers = []

    def start(*args, **kwargs):
        servers.append(LineServer(*args, **kwargs))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def test_a_closed_loop_keeps_its_calls_in_flight(serve):
    server = serve(0.002)
    seen = run_closed(server, in_flight=4, seconds=0.4, warm_s=0.1)
    assert server.most == 4
    # Little's law: calls in flight = rate x latency.
    assert seen.calls / seen.seconds * seen.latencies_s.mean() == pytest.approx(4, rel=0.15)
    assert seen.codes == {"OK": pytest.approx(seen.calls, abs=4)}
    assert set(seen.batches) == {4}
    assert np.isnan(seen.server_cpu_s)


def test_calls_as_long_as_the_stretch_are_counted_by_their_part_in_it(serve):
    """Two calls at a time of 0.1 s each, in a stretch of 0.25 s: about 2.5 of them."""
    seen = run_closed(serve(0.1), in_flight=2, seconds=0.25, warm_s=0.15)
    assert seen.calls == pytest.approx(2.5, abs=0.3)


def test_the_servers_clock_is_read_around_the_stretch_only(serve):
    readings = iter([10.0, 10.25])
    seen = run_closed(
        serve(0.002),
        in_flight=1,
        seconds=0.05,
        warm_s=0.05,
        server_clock=lambda: next(readings),
    )
    assert seen.server_cpu_s == 0.25


def test_an_open_loop_counts_the_wait_of_calls_that_a_stall_held_up(serve):
    """Coordinated omission: a closed loop sees one slow call, the arrivals see a hundred."""
    stall = (0.2, 0.3)
    closed = run_closed(serve(0.001, stall=stall), in_flight=1, seconds=0.8, warm_s=0.0)
    opened = run_open(
        serve(0.001, stall=stall), rate_per_s=200, seconds=0.8, warm_s=0.0, seed=1
    )
    assert np.sum(closed.latencies_s > 0.05) <= 3
    assert np.sum(opened.latencies_s > 0.05) > 25
    assert opened.latencies_s.max() > 0.25
    assert opened.calls > 50
    assert opened.unsent == 0
    assert len(opened.late_s) == sum(opened.codes.values())


def test_arrivals_are_a_poisson_process_of_the_rate(serve):
    seen = run_open(serve(0.0), rate_per_s=400, seconds=1.0, warm_s=0.0, seed=3)
    assert len(seen.late_s) == pytest.approx(400, abs=5 * 20)


@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED"])
def test_a_server_that_answers_nothing_well_is_an_error(serve, code):
    with pytest.raises(Unavailable, match=code):
        run_closed(serve(0.001, code=code), in_flight=2, seconds=0.05, warm_s=0.0)
    with pytest.raises(Unavailable, match=code):
        run_open(serve(0.001, code=code), rate_per_s=200, seconds=0.1, warm_s=0.0, seed=1)
