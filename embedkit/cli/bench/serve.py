"""``embedkit bench serve``: a served model beside bare onnxruntime."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

import click

from embedkit.cli.options.number import Number
from embedkit.errors import InvalidInput

if TYPE_CHECKING:
    from embedkit.bench.serving.measure import Case, Round
    from embedkit.bench.serving.run import Plan

__all__ = ["serve"]

_FILE = click.Path(dir_okay=False, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


class Options(TypedDict):
    """The options of ``bench serve``, as click hands them over."""

    model: tuple[str, ...]
    bundle: Path | None
    server: str | None
    metrics: str
    mode: tuple[str, ...]
    concurrency: str
    load: str
    rate: tuple[float, ...]
    images_per_call: int
    calls_in_flight: int
    images_per_message: int
    window: int
    seconds: float
    rounds: int
    server_cores: str
    client_cores: str
    threads: int
    provider: str
    precision: Literal["fp32", "fp16", "int8"]
    out: Path | None
    plot: Path | None
    server_arguments: tuple[str, ...]


@click.command(name="serve", context_settings={"show_default": True})
@click.option(
    "--model",
    multiple=True,
    help="light or heavy; with --server, the name there.  [default: both]",
)
@click.option("--bundle", type=_FOLDER, metavar="DIR", help="Serve this bundle.")
@click.option("--server", metavar="HOST:PORT", help="Measure this server, not one of its own.")
@click.option("--metrics", default="", metavar="HOST:PORT", help="Its /metrics: batches, CPU.")
@click.option(
    "--mode",
    type=click.Choice(["unary", "multi-image", "stream"]),
    multiple=True,
    default=("unary", "multi-image", "stream"),
    help="Repeat for several.",
)
@click.option("--concurrency", default="1,4,16,64", help="Unary calls in flight, closed loop.")
@click.option(
    "--load",
    default="0.5,0.8",
    help="Poisson arrivals of unary calls, as fractions of the best closed loop; '' for none.",
)
@click.option(
    "--rate",
    type=Number(0, min_open=True),
    multiple=True,
    help="The same, per second.",
)
@click.option("--images-per-call", type=click.IntRange(1), default=64, help="multi-image.")
@click.option("--calls-in-flight", type=click.IntRange(1), default=4, help="multi-image.")
@click.option("--images-per-message", type=click.IntRange(1), default=16, help="stream.")
@click.option("--window", type=click.IntRange(1), default=16, help="stream: without an answer.")
@click.option("--seconds", type=Number(0.1), default=2.0, help="Of each case in each round.")
@click.option("--rounds", type=click.IntRange(1), default=5, help="Bare, served, bare, ...")
@click.option("--server-cores", default="0", metavar="CORES", help="Also the bare session's.")
@click.option("--client-cores", default="1", metavar="CORES", help="0,2 or 4-7, or any.")
@click.option(
    "--threads", type=click.IntRange(1), default=1, help="Of server and bare session."
)
@click.option("--provider", default="cpu", metavar="cpu|cuda|NAME", help="Of both.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8"]),
    default="fp32",
    help="Graph of the bundle that both run; with --server, that server's.",
)
@click.option("--out", type=_FILE, help="JSON file.")
@click.option("--plot", type=_FILE, help="PNG, SVG or PDF file.")
@click.argument("server_arguments", nargs=-1, type=click.UNPROCESSED)
def serve(**options: Unpack[Options]) -> None:
    """Compare a served model with bare onnxruntime.

    Efficiency is served images per second over those of the same graph in a bare session, on
    the same cores, in the same round: the two take turns. Without --bundle and --server two
    networks with random weights are served, which take about 0.3 and 3 ms per image. With
    --server, --bundle is what the bare session runs.

    SERVER_ARGUMENTS, behind --, go to 'embedkit serve'.
    """
    from rich.console import Console

    from embedkit.bench.serving.plot import check_suffix, plot
    from embedkit.bench.serving.run import report_head, run
    from embedkit.cli.bench.serve_table import print_model

    if options["plot"] is not None:
        check_suffix(options["plot"])
    console = Console()
    models = []
    with _plans(options) as plans:
        for plan in plans:
            models.append(run(plan, _tell))
            print_model(models[-1], console)
        head = report_head(plans[0])
    if options["out"] is not None:
        text = json.dumps({**head, "models": models}, indent=1)
        options["out"].write_text(text + "\n", encoding="utf-8")
    if options["plot"] is not None:
        plot(models, options["plot"])


@contextmanager
def _plans(options: Options) -> "Iterator[list[Plan]]":
    """What to measure; bundles made for it live as long as this."""
    from embedkit.bench.models import NETWORKS, write_network

    if options["bundle"] is not None or options["server"] is not None:
        name = options["model"][0] if options["model"] else ""
        yield [_plan(options, options["bundle"], name)]
        return
    with tempfile.TemporaryDirectory(prefix="embedkit-bench-") as folder:
        names = options["model"] or tuple(NETWORKS)
        bundles = [write_network(Path(folder), name) for name in names]
        yield [_plan(options, bundle, "") for bundle in bundles]


def _plan(options: Options, bundle: Path | None, model: str) -> "Plan":
    from embedkit.bench.cores import parse_cores
    from embedkit.bench.serving.measure import Pace
    from embedkit.bench.serving.run import Plan

    return Plan(
        _cases(options),
        bundle,
        server=options["server"] or "",
        model=model,
        metrics=options["metrics"],
        pace=Pace(
            options["seconds"],
            options["rounds"],
            client_cores=parse_cores(options["client_cores"]),
        ),
        server_cores=parse_cores(options["server_cores"]),
        threads=options["threads"],
        provider=options["provider"],
        precision=options["precision"],
        arguments=options["server_arguments"],
    )


def _cases(options: Options) -> "list[Case]":
    """Closed loops first: open ones are fractions of what they reach."""
    from embedkit.bench.serving.measure import Case

    cases = []
    if "unary" in options["mode"]:
        cases += [Case("unary", 1, int(n)) for n in _numbers(options["concurrency"])]
    if "multi-image" in options["mode"]:
        several = options["images_per_call"], options["calls_in_flight"]
        cases.append(Case("multi-image", *several))
    if "stream" in options["mode"]:
        cases.append(Case("stream", options["images_per_message"], options["window"]))
    if "unary" in options["mode"]:
        cases += [Case("unary", load=share) for share in _numbers(options["load"])]
        cases += [Case("unary", rate=rate) for rate in options["rate"]]
    return list(dict.fromkeys(cases))


def _numbers(text: str) -> list[float]:
    """Positive numbers with commas between them; none in an empty text."""
    try:
        numbers = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = [0.0]
    if any(not 0 < number < float("inf") for number in numbers):
        raise InvalidInput(f"expected positive numbers such as 1,4,16, got {text!r}")
    return numbers


def _tell(number: int, case: "Case", turn: "Round") -> None:
    """Say on standard error how far it is."""
    rate = turn.served.calls * case.images / turn.served.seconds
    click.echo(f"round {number + 1}: {case.name}, {rate:.0f} images/s", err=True)
