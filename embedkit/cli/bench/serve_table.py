"""The table that ``embedkit bench serve`` prints of each model."""

from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

__all__ = ["print_model"]

_COLUMNS = ("images/s", "efficiency", "by CPU", "overhead/call", "client/call", "batch")
# A session that runs on the CPU and gets less of its cores than this is being disturbed.
_LEAST_SHARE = 0.95
_LATENCIES = ("p50", "p90", "p99", "p99.9")


def print_model(model: dict[str, Any], console: Console) -> None:
    """Print one model's part of the JSON file.

    Args:
        model: As ``embedkit.bench.serving.run.run`` returns it.
        console: Where to.
    """
    console.print(
        f"[bold]{model['model']}[/]  {_about_raw(model)}", highlight=False, soft_wrap=True
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("load")
    for heading in (*_COLUMNS, *(f"{name} ms" for name in _LATENCIES)):
        table.add_column(heading, justify="right")
    table.add_column("other")
    for case in model["cases"]:
        table.add_row(*_row(case))
    # On a narrow terminal a line may wrap, but no name and no number is cut.
    unlimited = console.options.update(max_width=1000)
    console.width = max(console.width, Measurement.get(console, unlimited, table).maximum)
    console.print(table, crop=False, highlight=False)
    got = model.get("raw", {}).get("cores", {}).get("median")
    is_cpu = model["provider"] == "cpu"
    if is_cpu and got is not None and got < _LEAST_SHARE * model["threads"]:
        console.print(
            f"[yellow]other programs disturb: the bare session got {got:.2f} of "
            f"{model['threads']} cores; trust 'by CPU' more than 'efficiency'[/]",
            soft_wrap=True,
        )


def _about_raw(model: dict[str, Any]) -> str:
    raw = model.get("raw")
    if raw is None:
        return "no bare session: give --bundle for the efficiency"
    best, lone = raw["sizes"][str(raw["batch"])], raw["sizes"].get("1")
    text = (
        f"bare session: {_number(best['images_per_s'], 0)} images/s at batch {raw['batch']}, "
        f"{_number(best['cpu_us_per_image'], 0)} µs of CPU per image"
    )
    return text + (f"; one image {_number(lone['p50_ms'], 2)} ms" if lone else "")


def _row(case: dict[str, Any]) -> list[str]:
    latency = case["latency_ms"]
    times = [f"{latency[q]:.2f}" if q in latency else "-" for q in _LATENCIES]
    return [
        case["name"],
        _number(case["images_per_s"], 0),
        _range(case.get("efficiency")),
        _range(case.get("cpu_efficiency")),
        _micros(case.get("overhead_us_per_call")),
        _micros(case["client_cpu_us_per_call"]),
        _median_batch(case),
        *times,
        _other(case),
    ]


def _other(case: dict[str, Any]) -> str:
    """What is out of the ordinary: refusals, lateness of the client, the lone call's cost."""
    found = [f"{code} {n}" for code, n in case["codes"].items() if code != "OK"]
    if "over_lone_ms" in case:
        found.append(f"p50 {_number(case['over_lone_ms'], 2)} ms over the bare session")
    if case.get("unsent"):
        found.append(f"{case['unsent']} not sent")
    if "p99" in case.get("sent_late_ms", {}):
        found.append(f"sent late by p99 {case['sent_late_ms']['p99']:.2f} ms")
    return ", ".join(found)


def _median_batch(case: dict[str, Any]) -> str:
    """The bucket in which the median batch lies."""
    batches = case["batches"]
    total, seen = sum(batches.values()), 0.0
    for bound, count in batches.items():
        seen += count
        if total and seen * 2 >= total:
            return f"≤{bound}"
    return "-"


def _number(spread: dict[str, Any], digits: int) -> str:
    value = spread["median"]
    return "-" if value is None else f"{value:.{digits}f}"


def _micros(spread: dict[str, Any] | None) -> str:
    if spread is None or spread["median"] is None:
        return "-"
    return f"{spread['median']:.0f} µs"


def _range(spread: dict[str, Any] | None) -> str:
    if spread is None or spread["median"] is None:
        return "-"
    return f"{spread['median']:.3f} [{spread['min']:.3f}-{spread['max']:.3f}]"
