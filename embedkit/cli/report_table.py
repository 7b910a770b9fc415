"""The table that ``embedkit eval`` ends with: each metric beside its baselines."""

from collections.abc import Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from embedkit.evaluate.context import BASELINES
from embedkit.evaluate.report import Report, write_report
from embedkit.evaluate.task import Metric, TaskResult

__all__ = ["deliver", "print_report"]

_COLOUR = {"ok": "green", "skipped": "yellow", "failed": "red"}


def deliver(report: Report, folder: Path) -> None:
    """Write the report, then print its numbers: a reader that went away costs none of them."""
    write_report(report, folder)
    print_report(report, Console())
    click.echo(f"report: {folder / 'report.html'}")


def print_report(report: Report, console: Console) -> None:
    """Print the metrics, the warnings, the gates and what made the run invalid."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("metric")
    baselines = _baselines(report)
    for heading in ("value", "95 % interval", "n", *baselines):
        table.add_column(heading.replace("_", " "), justify="right")
    for result in report.results:
        for row in _rows(result, baselines):
            table.add_row(*row)
    # On a narrow terminal a line may wrap, but no name and no number is cut.
    unlimited = console.options.update(max_width=1000)
    console.width = max(console.width, Measurement.get(console, unlimited, table).maximum)
    console.print(table, crop=False)
    for result in report.results:
        for warning in result.warnings:
            style = _COLOUR[result.status] if result.status != "ok" else "yellow"
            console.print(Text(f"{result.task}: {warning}", style))
    stored = report.run.get("from_cache")
    if isinstance(stored, list) and stored:
        console.print(Text(f"from the cache, not asked again: {', '.join(stored)}"))
    for gate in report.gates:
        outcome = "passed" if gate.passed else f"failed {gate.reason}".rstrip()
        value = "none" if gate.value is None else f"{gate.value:.4g}"
        line = f"gate {gate.gate}: {outcome} (value {value})"
        console.print(Text(line, "green" if gate.passed else "red"))
    if report.is_empty:
        console.print(Text("nothing was measured: every task was skipped", "bold red"))
    for problem in report.problems:
        console.print(Text(f"the run is invalid: {problem}", "bold red"))


def _baselines(report: Report) -> tuple[str, ...]:
    """Those of every evaluation, or of a study, which has its own."""
    found = {name for result in report.results for name in result.baselines}
    return BASELINES if not found or found & {*BASELINES} else tuple(sorted(found))


def _rows(result: TaskResult, baselines: tuple[str, ...]) -> Iterator[list[str | Text]]:
    """One row per metric, or one that says why there is none."""
    if result.status != "ok":
        yield [result.task, Text(result.status, _COLOUR[result.status])]
    for name, metric in result.metrics.items():
        beside = [result.baselines.get(b, {}).get(name) for b in baselines]
        yield [
            f"{result.task}.{name}",
            _number(metric),
            "" if metric.ci is None else f"{metric.ci[0]:.3g} to {metric.ci[1]:.3g}",
            f"{metric.n:,}",
            *("" if other is None else _number(other) for other in beside),
        ]


def _number(metric: Metric) -> str:
    """Fractions with four decimals, everything else with four digits."""
    return f"{metric.value:.4f}" if metric.unit == "fraction" else f"{metric.value:.4g}"
