"""Turns become figures: medians over rounds with their range, costs per vector."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from embedkit.bench.index.bare import BareRun
from embedkit.bench.index.served import Costs
from embedkit.bench.serving.load import Slice
from embedkit.bench.serving.result import latency_figures, spread

__all__ = ["SCHEMA", "Figures", "Load", "Turn", "best", "cost_figures", "point_figures"]

SCHEMA = "embedkit.bench.index/1"

Figures = dict[str, Any]
"""What goes into the JSON file: numbers, names, and tables of them."""


class Turn(NamedTuple):
    """One served stretch between two bare ones."""

    before: BareRun
    served: Slice
    after: BareRun


class Load(NamedTuple):
    """How queries come.

    Attributes:
        batch: Queries per call.
        in_flight: Calls without an answer at a time.
    """

    batch: int
    in_flight: int


def point_figures(
    knob: str,
    value: int,
    load: Load,
    recalls: tuple[float, float],
    turns: Sequence[Turn],
) -> Figures:
    """One setting of an index under one load.

    Args:
        knob: What was turned; empty for nothing.
        value: How far.
        load: How queries came.
        recalls: Of the served and of the bare index.
        turns: What was measured, at least one.

    Returns:
        ``recall`` and ``bare_recall``; ``queries_per_s``, ``bare_queries_per_s`` and their
        ratio in the same round, ``efficiency``; ``cpu_efficiency``, the same by CPU seconds;
        ``latency_ms`` of a call; and ``over_bare_ms``, its median over that of a bare call,
        where one call was in flight.
    """
    rates, bare_rates, by_cpu, over = [], [], [], []
    for turn in turns:
        served = turn.served
        rates.append(served.calls * load.batch / served.seconds)
        bare_rates.append(_mean(turn, "queries_per_s"))
        cpu_us = served.server_cpu_s / (served.calls * load.batch) * 1e6
        by_cpu.append(_mean(turn, "cpu_us") / cpu_us)
        if len(served.latencies_s):
            over.append(float(np.median(served.latencies_s)) * 1e3 - _mean(turn, "p50_ms"))
    codes: dict[str, int] = {}
    for turn in turns:
        for code, count in turn.served.codes.items():
            codes[code] = codes.get(code, 0) + count
    figures: Figures = {
        "knob": knob,
        "value": value,
        **load._asdict(),
        "recall": round(recalls[0], 5),
        "bare_recall": round(recalls[1], 5),
        "queries_per_s": spread(rates),
        "bare_queries_per_s": spread(bare_rates),
        "efficiency": spread([a / b for a, b in zip(rates, bare_rates, strict=True)]),
        "cpu_efficiency": spread(by_cpu),
        "latency_ms": latency_figures(
            np.concatenate([turn.served.latencies_s for turn in turns]) * 1e3
        ),
        "codes": codes,
    }
    if load.in_flight == 1 and over:
        figures["over_bare_ms"] = spread(over)
    return figures


def cost_figures(
    costs: Costs, bare_build_s: float, bare_bytes: int, shape: tuple[int, int]
) -> Figures:
    """What an index took to build and to keep, and the same of the bare one.

    Args:
        costs: Of the served one.
        bare_build_s: Seconds that the bare one took.
        bare_bytes: Memory that it takes.
        shape: (n, d) of the vectors.
    """
    n, dim = shape

    def per_vector(resident: int) -> float:
        return round((resident - costs.idle_bytes) / n, 1)

    return {
        "upsert_s": round(costs.upsert_s, 3),
        "upserts_per_s": round(n / costs.upsert_s),
        "settle_s": round(costs.settle_s, 3),
        "restart_s": round(costs.restart_s, 3),
        "bare_build_s": round(bare_build_s, 3),
        "idle_mb": round(costs.idle_bytes / 1e6, 1),
        "memory_bytes_per_vector": per_vector(costs.restarted_bytes),
        "filled_bytes_per_vector": per_vector(costs.filled_bytes),
        "peak_bytes_per_vector": per_vector(costs.peak_bytes),
        "bare_bytes_per_vector": round(bare_bytes / n, 1),
        "raw_bytes_per_vector": 4 * dim,
        "disk_bytes_per_vector": round(costs.disk_bytes / n, 1),
    }


def best(index: Figures, batch: int, least: float, *, bare: bool = False) -> float | None:
    """Queries per second of the fastest setting with at least some recall; None without one.

    Args:
        index: One of the JSON file's ``indexes``.
        batch: Queries per call.
        least: Recall, a fraction.
        bare: Of the bare index.
    """
    prefix = "bare_" if bare else ""
    rates = [
        point[f"{prefix}queries_per_s"]["median"]
        for point in index["points"]
        if point["batch"] == batch and point[f"{prefix}recall"] >= least
    ]
    return max(rates, default=None)


def _mean(turn: Turn, field: str) -> float:
    """The bare index on average before and after."""
    return float(getattr(turn.before, field) + getattr(turn.after, field)) / 2
