"""Rounds become figures: medians over rounds with their range, latencies over all calls."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from embedkit.bench.serving.measure import Case, Round
from embedkit.bench.serving.raw import RawRun

__all__ = ["SCHEMA", "best_size", "figures_of", "latency_figures", "raw_figures", "spread"]

SCHEMA = "embedkit.bench.serve/1"
_QUANTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9}

Figures = dict[str, Any]
"""What goes into the JSON file: numbers, names, and tables of them."""


def best_size(rounds: Iterable[Round]) -> int:
    """Batch size at which the bare session is fastest, by the median over all its stretches.

    Chosen once over all rounds: the fastest of five noisy figures in every round would be
    faster than the session is.

    Args:
        rounds: At least one, with a bare session.
    """
    # The stretch after a turn is the one before the next.
    rates = _by_size(run for turn in rounds for run in turn.before)
    return max(rates, key=lambda size: float(np.median([r.images_per_s for r in rates[size]])))


def raw_figures(rounds: Sequence[Round]) -> Figures:
    """What the bare session did at every batch size, and at which it is best.

    ``cores`` is the CPU seconds per second that it got at its best size: where that is less
    than its threads, other programs took the rest, and the clock says little.
    """
    found = _by_size(run for turn in rounds for run in turn.before)
    best = best_size(rounds)
    return {
        "batch": best,
        "cores": spread([run.cpu_us * run.images_per_s / 1e6 for run in found[best]]),
        "sizes": {
            str(size): {
                "images_per_s": spread([run.images_per_s for run in runs]),
                "cpu_us_per_image": spread([run.cpu_us for run in runs]),
                "p50_ms": spread([run.p50_ms for run in runs]),
            }
            for size, runs in found.items()
        },
    }


def figures_of(case: Case, rounds: Sequence[Round], best: int | None) -> Figures:
    """One case's part of the JSON file.

    Args:
        case: What was sent.
        rounds: What came back, at least one.
        best: Batch size of the bare session to compare with; None without one.

    Returns:
        ``images_per_s``, ``latency_ms``, ``codes``, ``batches``, CPU per call of both sides;
        with a bare session ``efficiency`` (served over bare images per second, same round),
        ``cpu_efficiency`` (the same by CPU seconds), ``overhead_us_per_call``, and for a single
        call in flight ``over_lone_ms`` (its median latency over that of a bare run of one
        image). Each of these is a median over rounds with its range.
    """
    slices = [turn.served for turn in rounds]
    figures: Figures = {
        "name": case.name,
        **{key: value for key, value in case._asdict().items() if value},
        "loop": "open" if case.is_open else "closed",
        "images_per_s": spread([s.calls * case.images / s.seconds for s in slices]),
        "latency_ms": latency_figures(np.concatenate([s.latencies_s for s in slices]) * 1e3),
        "codes": _added(s.codes for s in slices),
        "server_cpu_us_per_call": spread([_per_call(s.server_cpu_s, s.calls) for s in slices]),
        "client_cpu_us_per_call": spread([_per_call(s.client_cpu_s, s.calls) for s in slices]),
        "batches": {f"{k:g}": n for k, n in sorted(_added(t.batches for t in rounds).items())},
    }
    if case.is_open:
        late = np.concatenate([s.late_s for s in slices]) * 1e3
        figures["sent_late_ms"] = latency_figures(late)
        figures["unsent"] = sum(s.unsent for s in slices)
    if best is not None:
        figures.update(_compared(case, rounds, best))
    return figures


def _compared(case: Case, rounds: Sequence[Round], best: int) -> Figures:
    """What needs the bare session of the same round."""
    efficiency, by_cpu, overhead, over_lone = [], [], [], []
    for turn in rounds:
        served = turn.served
        bare = _mean(turn.raw, best)
        efficiency.append(served.calls * case.images / served.seconds / bare.images_per_s)
        per_call = _per_call(served.server_cpu_s, served.calls)
        by_cpu.append(bare.cpu_us * case.images / per_call if per_call else float("nan"))
        overhead.append(per_call - bare.cpu_us * case.images)
        latencies = served.latencies_s
        median_ms = float(np.median(latencies)) * 1e3 if len(latencies) else float("nan")
        over_lone.append(median_ms - _mean(turn.raw, 1).p50_ms)
    compared: Figures = {
        "efficiency": spread(efficiency),
        "cpu_efficiency": spread(by_cpu),
        "overhead_us_per_call": spread(overhead),
    }
    if case.in_flight == 1 and case.images == 1:
        compared["over_lone_ms"] = spread(over_lone)
    return compared


def _mean(runs: Sequence[RawRun], size: int) -> RawRun:
    """The bare session at one size, on average over the stretches before and after."""
    chosen = [run for run in runs if run.size == size]
    if not chosen:
        return RawRun(size, *[float("nan")] * 3)
    columns = list(zip(*chosen, strict=True))[1:]
    return RawRun(size, *[float(np.mean(column)) for column in columns])


def _by_size(runs: Iterable[RawRun]) -> dict[int, list[RawRun]]:
    found: dict[int, list[RawRun]] = {}
    for run in runs:
        found.setdefault(run.size, []).append(run)
    return found


def _per_call(cpu_s: float, calls: float) -> float:
    return cpu_s / calls * 1e6 if calls else float("nan")


def spread(values: Sequence[float]) -> Figures:
    """Median, least and greatest, and the value of each round; None for what is unknown."""
    known = [value for value in values if np.isfinite(value)]
    ends = (float(np.median(known)), min(known), max(known)) if known else (None,) * 3
    each = [round(v, 4) if np.isfinite(v) else None for v in values]
    return {**dict(zip(("median", "min", "max"), ends, strict=True)), "rounds": each}


def latency_figures(values_ms: "np.ndarray[Any, np.dtype[np.float64]]") -> Figures:
    """Percentiles of latencies, their largest and their number."""
    if not len(values_ms):
        return {"n": 0}
    found = np.percentile(values_ms, list(_QUANTILES.values()))
    figures = {name: round(float(v), 4) for name, v in zip(_QUANTILES, found, strict=True)}
    return {**figures, "max": round(float(values_ms.max()), 4), "n": len(values_ms)}


def _added(tables: Iterable[Mapping[Any, float]]) -> dict[Any, float]:
    total: dict[Any, float] = {}
    for table in tables:
        for key, value in table.items():
            total[key] = total.get(key, 0) + value
    return total
