"""Closed and open loops over any sender, and what they saw."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from embedkit.errors import Unavailable

__all__ = ["Clock", "Done", "Reply", "Sender", "Slice", "run_closed", "run_open"]

OK = "OK"
# A refused call is not repeated at once: a caller that does that measures its own refusals.
_BACK_OFF_S = 0.001
_POLL_S = 0.005
# Arrivals that may be unanswered at a time; more would measure this process's memory.
_MAX_OUTSTANDING = 20_000
_LAST_ANSWERS_S = 60.0


class Reply(NamedTuple):
    """The end of one call.

    Attributes:
        code: ``OK``, or why the server or the transport refused it.
        batch_size: Largest batch that its images ran in, where the reply was looked at; else 0.
    """

    code: str
    batch_size: int = 0


Done = Callable[[Reply], None]
"""Called once at the end of a call, on a thread of the sender."""

Clock = Callable[[], float]
"""CPU seconds that a server has used so far."""


class Sender(Protocol):
    """Sends the same request as often as it is told to."""

    def send(self, done: Done) -> None:
        """Start one call and return at once."""
        ...

    def close(self) -> None:
        """Give the connection back."""
        ...


@dataclass(frozen=True)
class Slice:
    """What a loop saw in one stretch of time, its warm-up left out.

    Attributes:
        seconds: Length of the stretch.
        calls: Good calls in it; one that reaches over an edge counts by the part of its time
            inside. Whole calls would be off by one in ten where a call takes a tenth of it.
        latencies_s: Of the good calls: in a closed loop of those that ended in the stretch,
            from their start; in an open one of those that should have started in it, from that
            moment on, however late they ended.
        codes: The same calls, and the failed ones, by status.
        batches: Batch sizes seen, each with how often.
        server_cpu_s: CPU seconds of the server, or NaN if unknown.
        client_cpu_s: CPU seconds of this process.
        late_s: In an open loop, seconds between intended and real start of each call.
        unsent: Arrivals of an open loop that were given up: too many calls had no answer yet.
    """

    seconds: float
    calls: float
    latencies_s: npt.NDArray[np.float64]
    codes: dict[str, int]
    batches: dict[int, int]
    server_cpu_s: float
    client_cpu_s: float
    late_s: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    unsent: int = 0


class _Clocks(NamedTuple):
    """Now, and the CPU seconds of server and client until now."""

    now: float
    server: float
    client: float


class _Recorder:
    """Collects replies; the threads of a sender call it."""

    def __init__(self, server_clock: Clock | None) -> None:
        self._clock = server_clock
        self._ends: list[tuple[float, float, str]] = []
        self._batches: Counter[int] = Counter()

    def put(self, began: float, reply: Reply) -> None:
        self._ends.append((began, time.perf_counter(), reply.code))
        if reply.batch_size:
            self._batches[reply.batch_size] += 1

    @property
    def count(self) -> int:
        """Calls that have ended so far."""
        return len(self._ends)

    def clocks(self) -> _Clocks:
        server = float("nan") if self._clock is None else self._clock()
        return _Clocks(time.perf_counter(), server, time.process_time())

    def slice(
        self,
        before: _Clocks,
        after: _Clocks,
        *,
        by_start: bool = False,
        late_s: Sequence[float] = (),
        unsent: int = 0,
    ) -> Slice:
        """What happened between two looks at the clocks."""
        if not any(code == OK for _, _, code in self._ends):
            found = dict(Counter(code for _, _, code in self._ends))
            raise Unavailable(f"expected answers from the server, got {found or 'none'}")
        chosen = [
            (began, end, code)
            for began, end, code in self._ends
            if before.now <= (began if by_start else end) < after.now
        ]
        return Slice(
            seconds=after.now - before.now,
            calls=sum(
                _share(began, end, before.now, after.now)
                for began, end, code in self._ends
                if code == OK
            ),
            latencies_s=np.array([end - began for began, end, code in chosen if code == OK]),
            codes=dict(Counter(code for _, _, code in chosen)),
            batches=dict(self._batches),
            server_cpu_s=after.server - before.server,
            client_cpu_s=after.client - before.client,
            late_s=np.asarray(late_s, np.float64),
            unsent=unsent,
        )


def _share(began: float, end: float, start: float, stop: float) -> float:
    """The part of a call's time that lies between two moments, a fraction in [0, 1]."""
    inside = min(end, stop) - max(began, start)
    return max(0.0, inside) / max(end - began, 1e-9)


def run_closed(
    sender: Sender,
    *,
    in_flight: int,
    seconds: float,
    warm_s: float,
    server_clock: Clock | None = None,
) -> Slice:
    """Keep a number of calls in flight: each answer sends the next call.

    Args:
        sender: What to send.
        in_flight: Calls without an answer at any time, at least 1.
        seconds: Length of the stretch.
        warm_s: Seconds before it that do not count; longer until as many calls as are in flight
            have been answered.
        server_clock: CPU seconds of the server, if they can be known.

    Raises:
        Unavailable: If no call was answered well.
    """
    recorder = _Recorder(server_clock)
    stopping = threading.Event()
    ended = threading.Semaphore(0)

    def go() -> None:
        began = time.perf_counter()

        def done(reply: Reply) -> None:
            recorder.put(began, reply)
            if stopping.is_set():
                ended.release()
                return
            if reply.code != OK:
                time.sleep(_BACK_OFF_S)
            go()

        sender.send(done)

    for _ in range(in_flight):
        go()
    time.sleep(warm_s)
    # The first calls all start at once and wait for one another: they are no steady state.
    limit = time.monotonic() + _LAST_ANSWERS_S
    while recorder.count < in_flight and time.monotonic() < limit:
        time.sleep(_POLL_S)
    before = recorder.clocks()
    time.sleep(seconds)
    after = recorder.clocks()
    stopping.set()
    limit = time.monotonic() + _LAST_ANSWERS_S
    for _ in range(in_flight):
        if not ended.acquire(timeout=max(0.0, limit - time.monotonic())):
            raise Unavailable(
                f"expected every answer within {_LAST_ANSWERS_S:.0f} s, got fewer"
            )
    return recorder.slice(before, after)


def run_open(
    sender: Sender,
    *,
    rate_per_s: float,
    seconds: float,
    warm_s: float,
    seed: int,
    server_clock: Clock | None = None,
) -> Slice:
    """Send calls at Poisson arrivals, whether or not earlier ones have been answered.

    Latency counts from the moment a call should have started, so that a server which stalls is
    charged for every call that had to wait meanwhile, also for those not yet sent.

    Args:
        sender: What to send.
        rate_per_s: Mean arrivals per second, above 0.
        seconds: Length of the stretch.
        warm_s: Seconds before it that do not count.
        seed: Of the arrivals.
        server_clock: CPU seconds of the server, if they can be known.

    Raises:
        Unavailable: If no call was answered well.
    """
    recorder = _Recorder(server_clock)
    arrivals = _arrivals(rate_per_s, warm_s + seconds, seed)
    outstanding = threading.Semaphore(_MAX_OUTSTANDING)
    begin = time.perf_counter() + warm_s
    moments = [begin - warm_s + arrival for arrival in arrivals]
    _fire(sender, (m for m in moments if m < begin), recorder, outstanding)
    _sleep_until(begin)
    before = recorder.clocks()
    late = _fire(sender, (m for m in moments if m >= begin), recorder, outstanding)
    _sleep_until(begin + seconds)
    after = recorder.clocks()
    for _ in range(_MAX_OUTSTANDING):
        if not outstanding.acquire(timeout=_LAST_ANSWERS_S):
            raise Unavailable(
                f"expected every answer within {_LAST_ANSWERS_S:.0f} s, got fewer"
            )
    sent = [seconds for seconds in late if seconds is not None]
    unsent = len(late) - len(sent)
    return recorder.slice(before, after, by_start=True, late_s=sent, unsent=unsent)


def _fire(
    sender: Sender,
    moments: Iterable[float],
    recorder: _Recorder,
    outstanding: threading.Semaphore,
) -> list[float | None]:
    """Send a call at each moment; return how late each was, None for one that was given up."""
    late: list[float | None] = []
    for moment in moments:
        _sleep_until(moment)
        if not outstanding.acquire(blocking=False):
            late.append(None)
            continue
        late.append(time.perf_counter() - moment)

        def done(reply: Reply, moment: float = moment) -> None:
            recorder.put(moment, reply)
            outstanding.release()

        sender.send(done)
    return late


def _arrivals(rate_per_s: float, seconds: float, seed: int) -> list[float]:
    """Moments of a Poisson process, in seconds, ascending."""
    rng = np.random.default_rng(seed)
    count = int(rate_per_s * seconds + 6 * np.sqrt(rate_per_s * seconds) + 16)
    moments = np.cumsum(rng.exponential(1 / rate_per_s, count))
    return [float(moment) for moment in moments[moments < seconds]]


def _sleep_until(moment: float) -> None:
    left = moment - time.perf_counter()
    if left > 0:
        time.sleep(left)
