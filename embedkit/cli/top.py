"""``embedkit top``: a table of what a server does now."""

import math
import time
from typing import TYPE_CHECKING

import click

from embedkit.cli.connection import Target, connected
from embedkit.cli.options.number import Number

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from embedkit.serve.observe.overview import Overview
    from embedkit.serve.observe.scrape import Histogram

__all__ = ["command"]

# Wide enough for every column; a pipe has no width of its own.
_WIDTH = 120


@click.command(name="top")
@connected()
@click.option(
    "--metrics",
    default="127.0.0.1:9090",
    show_default=True,
    metavar="HOST:PORT",
    help="Its /metrics, as told by --metrics-bind.",
)
@click.option("--every", type=Number(0.1), default=2.0, show_default=True, help="Seconds.")
@click.option("--once", is_flag=True, help="Print one table and end; for scripts.")
def command(target: Target, metrics: str, every: float, once: bool) -> None:
    """Watch a server: rate, batch sizes, queue, latency, provider.

    Rates and percentiles are those of the last --every seconds; percentiles are estimated from
    histograms, to within the width of a bucket. Ctrl-C ends it.
    """
    from rich.console import Console
    from rich.live import Live

    from embedkit.serve.observe.overview import compare
    from embedkit.serve.observe.scrape import fetch

    with target.connect(timeout_s=10.0) as client:
        client.models()  # a wrong address or credential is told now
    before = fetch(metrics)
    if once:
        time.sleep(every)
        Console(width=_WIDTH).print(_table(target.server, compare(before, fetch(metrics))))
        return
    with Live(screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(every)
            after = fetch(metrics)
            live.update(_table(target.server, compare(before, after)), refresh=True)
            before = after


def _table(server: str, seen: "Overview") -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    memory = f", {seen.memory_bytes / 2**20:.0f} MB" if seen.memory_bytes else ""
    head = f"{server}: {seen.cpu_share * 100:.0f} % CPU{memory}, over {seen.seconds:.1f} s"
    shed = ", ".join(f"{name} {rate:.1f}/s" for name, rate in seen.shed_per_s.items())
    lines = [Text(head, "bold"), Text(f"refused: {shed or 'nothing'}")]
    return Group(*lines, _models(seen), _calls(seen))


def _models(seen: "Overview") -> "RenderableType":
    table = _empty("model", "version", "images/s", "bad/s", "batches/s", "batch", "queue")
    for heading in ("queue MB", "in line p50", "p99 ms", "infer p50", "p99 ms"):
        table.add_column(heading, justify="right")
    for model in seen.models:
        table.add_row(
            model.name,
            ", ".join(model.versions),
            f"{model.images_per_s:.1f}",
            f"{model.bad_per_s:.1f}",
            f"{model.batches.count / seen.seconds:.1f}",
            _number(model.batches.mean, 1),
            f"{model.queued:.0f}",
            f"{model.queued_bytes / 2**20:.1f}",
            *(_ms(model.queue_s, q) for q in (0.5, 0.99)),
            *(_ms(model.infer_s, q) for q in (0.5, 0.99)),
        )
    return table


def _calls(seen: "Overview") -> "RenderableType":
    table = _empty("call", "calls/s", "failed/s", "p50 ms", "p90 ms", "p99 ms")
    for call in seen.calls:
        table.add_row(
            call.rpc,
            f"{call.per_s:.1f}",
            f"{call.failed_per_s:.1f}",
            *(_ms(call.seconds, q) for q in (0.5, 0.9, 0.99)),
        )
    return table


def _empty(first: str, *others: str) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first)
    for heading in others:
        table.add_column(heading, justify="right")
    return table


def _ms(histogram: "Histogram", q: float) -> str:
    return _number(histogram.quantile(q) * 1e3, 2)


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"
