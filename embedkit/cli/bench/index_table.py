"""The tables that ``embedkit bench index`` prints."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["print_indexes"]

_POINTS = (
    "recall",
    "bare",
    "queries/s",
    "efficiency",
    "by CPU",
    "p50 ms",
    "p99 ms",
    "+bare ms",
)
_COSTS = (
    "upserts/s",
    "settle s",
    "restart s",
    "bare build s",
    "memory B/vector",
    "peak",
    "bare",
    "raw",
    "disk B/vector",
)


def print_indexes(indexes: Sequence[dict[str, Any]], console: Console) -> None:
    """Print what every point reached, then what every index took.

    Args:
        indexes: As in the JSON file.
        console: Where to.
    """
    points, costs = _table("index", "setting", *_POINTS), _table("index", *_COSTS)
    for index in indexes:
        name = f"{index['data']} {index['n']:,} x {index['dim']} {index['kind']}"
        for point in index["points"]:
            points.add_row(name, *_point(point))
            name = ""
        costs.add_row(
            f"{index['data']} {index['n']:,} x {index['dim']} {index['kind']}",
            *_cost(index["costs"]),
        )
    # A narrow terminal must not cut numbers.
    console.width = max(console.width, 150)
    console.print(points, highlight=False)
    console.print()
    console.print(costs, highlight=False)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=True)
    return table


def _point(point: dict[str, Any]) -> list[str]:
    knob = f"{point['knob']}={point['value']} " if point["knob"] else ""
    efficiency = point["efficiency"]
    # Empty where calls took longer than all rounds.
    latency, over = point["latency_ms"], point.get("over_bare_ms")
    return [
        f"{knob}batch={point['batch']} x{point['in_flight']}",
        f"{point['recall']:.4f}",
        f"{point['bare_recall']:.4f}",
        f"{point['queries_per_s']['median']:.0f}",
        f"{efficiency['median']:.2f} [{efficiency['min']:.2f}-{efficiency['max']:.2f}]",
        f"{point['cpu_efficiency']['median']:.2f}",
        *(f"{latency[p]:.2f}" if p in latency else "-" for p in ("p50", "p99")),
        "" if over is None else f"{over['median']:+.2f}",
    ]


def _cost(costs: dict[str, Any]) -> list[str]:
    return [
        f"{costs['upserts_per_s']:,}",
        f"{costs['settle_s']:.1f}",
        f"{costs['restart_s']:.1f}",
        f"{costs['bare_build_s']:.1f}",
        f"{costs['memory_bytes_per_vector']:.0f}",
        f"{costs['peak_bytes_per_vector']:.0f}",
        f"{costs['bare_bytes_per_vector']:.0f}",
        f"{costs['raw_bytes_per_vector']}",
        f"{costs['disk_bytes_per_vector']:.0f}",
    ]
