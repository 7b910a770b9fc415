"""Rounds: the bare session and the server take turns, so that a drifting machine hurts both."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from embedkit.bench.cores import pinned
from embedkit.bench.serving.load import Sender, Slice, run_closed, run_open
from embedkit.bench.serving.raw import RawRun, RawSession
from embedkit.bench.serving.senders import StreamSender, UnarySender, make_request
from embedkit.bench.serving.server import Target
from embedkit.errors import InvalidInput
from embedkit.serve.observe.scrape import fetch

__all__ = ["Case", "Dial", "Mode", "Pace", "Round", "dial", "measure"]

Mode = Literal["unary", "multi-image", "stream"]

# Of the arrivals; every round has its own.
_SEED = 5
_LEAST_WARM_S = 0.2


class Case(NamedTuple):
    """One kind of load.

    Attributes:
        mode: ``unary`` is one image per call, ``multi-image`` several; ``stream`` several per
            message.
        images: Images per call.
        in_flight: Calls without an answer at a time, in a closed loop; 0 in an open one.
        load: Arrivals of an open loop as a fraction of the best closed loop of the same mode in
            the same round; 0 where ``rate`` says it.
        rate: Arrivals per second of an open loop.
    """

    mode: Mode
    images: int = 1
    in_flight: int = 0
    load: float = 0.0
    rate: float = 0.0

    @property
    def is_open(self) -> bool:
        """Whether calls are sent without waiting for earlier answers."""
        return not self.in_flight

    @property
    def name(self) -> str:
        """What a person calls it."""
        if self.in_flight:
            return f"{self.mode} x{self.in_flight}"
        return (
            f"{self.mode} at {self.load:.0%}" if self.load else f"{self.mode} {self.rate:g}/s"
        )


class Pace(NamedTuple):
    """How long and how often.

    Attributes:
        seconds: Served stretch of each case in each round; a bare stretch takes half of it.
        rounds: How often every case is measured.
        sizes: Batch sizes of the bare session.
        client_cores: Cores of this process meanwhile; empty for any.
    """

    seconds: float = 2.0
    rounds: int = 5
    sizes: tuple[int, ...] = (1, 8, 16, 32, 64)
    client_cores: tuple[int, ...] = ()


@dataclass(frozen=True)
class Round:
    """One turn of a case.

    Attributes:
        before: The bare session just before; empty without one.
        served: What the loop saw.
        after: The bare session just after.
        batches: Batches that the server ran, by the upper bound of their bucket, if its metrics
            could be read; else sizes seen in replies.
    """

    before: list[RawRun]
    served: Slice
    after: list[RawRun]
    batches: Mapping[float, float]

    @property
    def raw(self) -> list[RawRun]:
        """The bare session around the stretch."""
        return [*self.before, *self.after]


Dial = Callable[[Case], Sender]
"""Makes a sender of a case's requests."""


def dial(target: Target, shape: tuple[int, int, int]) -> Dial:
    """Return what sends random images to a server over gRPC.

    Args:
        target: The server.
        shape: (h, w, c) of the images.
    """

    def connect(case: Case) -> Sender:
        rng = np.random.default_rng(3)
        images = rng.integers(0, 256, (case.images, *shape), dtype=np.uint8)
        request = make_request(target.model, images)
        if case.mode == "stream":
            return StreamSender(target.address, request)
        return UnarySender(target.address, request)

    return connect


def measure(
    target: Target,
    raw: RawSession | None,
    cases: Sequence[Case],
    pace: Pace,
    connect: Dial,
    *,
    tell: Callable[[int, Case, Round], None] | None = None,
) -> dict[Case, list[Round]]:
    """Measure every case in every round.

    Args:
        target: The server.
        raw: The bare session; without one there is no efficiency.
        cases: In the order in which a round takes them.
        pace: How long and how often.
        connect: Makes the sender of a case's requests.
        tell: Called after each turn with the number of its round.

    Raises:
        Unavailable: If the server or the bare session goes away.
        InvalidInput: If the load of an open loop has no closed loop before it.
    """
    turns: dict[Case, list[Round]] = {case: [] for case in cases}
    with pinned(pace.client_cores):
        before = _bare(raw, pace)
        for number in range(pace.rounds):
            best: dict[Mode, float] = {}
            for case in cases:
                rate = _rate(case, best)
                served, batches = _serve(target, case, pace, connect, (rate, number))
                if case.in_flight:
                    best[case.mode] = max(
                        best.get(case.mode, 0.0), served.calls / served.seconds
                    )
                after = _bare(raw, pace)
                turns[case].append(Round(before, served, after, batches))
                before = after
                if tell is not None:
                    tell(number, case, turns[case][-1])
    return turns


def _bare(raw: RawSession | None, pace: Pace) -> list[RawRun]:
    return [] if raw is None else raw.measure(pace.sizes, pace.seconds / 2)


def _rate(case: Case, best: Mapping[Mode, float]) -> float:
    """Arrivals per second of an open loop."""
    if not case.load:
        return case.rate
    if case.mode not in best:
        raise InvalidInput(
            f"expected a closed loop of {case.mode} calls before {case.name}, got none; "
            "give a concurrency too, or a rate"
        )
    return case.load * best[case.mode]


def _serve(
    target: Target,
    case: Case,
    pace: Pace,
    connect: Dial,
    arrivals: tuple[float, int],
) -> tuple[Slice, Mapping[float, float]]:
    """One served stretch, and the batches that ran meanwhile."""
    before = fetch(target.metrics) if target.metrics else None
    warm_s = max(pace.seconds * 0.2, _LEAST_WARM_S)
    with closing(connect(case)) as sender:
        if case.in_flight:
            served = run_closed(
                sender,
                in_flight=case.in_flight,
                seconds=pace.seconds,
                warm_s=warm_s,
                server_clock=target.clock,
            )
        else:
            served = run_open(
                sender,
                rate_per_s=arrivals[0],
                seconds=pace.seconds,
                warm_s=warm_s,
                seed=_SEED + arrivals[1],
                server_clock=target.clock,
            )
    if before is None:
        return served, {float(size): float(n) for size, n in served.batches.items()}
    name, label = "embedkit_batch_size", {"model": target.model}
    ran = fetch(target.metrics).histogram(name, **label).since(before.histogram(name, **label))
    return served, {b: n for b, n in zip(ran.bounds, ran.counts, strict=True) if n}
