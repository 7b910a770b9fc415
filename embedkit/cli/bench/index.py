"""``embedkit bench index``: collections served over gRPC beside bare FAISS."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import click

from embedkit.cli.options.number import SEED, Number
from embedkit.errors import InvalidInput

if TYPE_CHECKING:
    from embedkit.bench.index.figures import Load
    from embedkit.bench.index.run import Plan

__all__ = ["index"]

_FILE = click.Path(dir_okay=False, path_type=Path)
_NPZ = click.Path(exists=True, dir_okay=False, path_type=Path)


class Options(TypedDict):
    """The options of the command, as click hands them over."""

    size: tuple[int, ...]
    dim: tuple[int, ...]
    data: Path | None
    kind: tuple[str, ...]
    load: tuple[str, ...]
    settings: int
    k: int
    queries: int
    seconds: float
    rounds: int
    server_cores: str
    client_cores: str
    seed: int
    out: Path | None
    plot: Path | None
    server_arguments: tuple[str, ...]


@click.command(name="index", context_settings={"show_default": True})
@click.option(
    "--size",
    type=click.IntRange(1),
    multiple=True,
    default=(10_000, 100_000),
    help="Vectors; repeat for several.",
)
@click.option(
    "--dim", type=click.IntRange(2), multiple=True, default=(128, 384), help="Dimensions."
)
@click.option("--data", type=_NPZ, help="Embeddings in an .npz file, in place of the mixture.")
@click.option("--kind", multiple=True, metavar="KIND", help="Of index.  [default: all]")
@click.option(
    "--load",
    multiple=True,
    default=("1x1", "64x4"),
    metavar="BATCHxCALLS",
    help="Queries per call, and calls in flight.",
)
@click.option(
    "--settings", type=click.IntRange(0), default=0, help="Of nprobe or ef, first N; 0: all."
)
@click.option("-k", type=click.IntRange(1), default=10, help="Neighbours per query.")
@click.option("--queries", type=click.IntRange(1), default=1000, help="Different ones.")
@click.option("--seconds", type=Number(0.1), default=1.0, help="Of each point in each round.")
@click.option("--rounds", type=click.IntRange(1), default=3, help="Bare, served, bare, ...")
@click.option("--server-cores", default="0", metavar="CORES", help="Also the bare index's.")
@click.option("--client-cores", default="1", metavar="CORES", help="0,2 or 4-7, or any.")
@click.option("--seed", type=SEED, default=0, help="Of the vectors.")
@click.option("--out", type=_FILE, help="JSON file.")
@click.option("--plot", type=_FILE, help="PNG, SVG or PDF file.")
@click.argument("server_arguments", nargs=-1, type=click.UNPROCESSED)
def index(**options: Unpack[Options]) -> None:
    """Compare served collections with bare FAISS.

    Every kind of index is built twice: by a server, from vectors sent to it, and by FAISS in a
    process without one. The two take turns on the same cores with one thread; efficiency is
    served queries per second over bare ones of the same round, at the same setting. Recall is
    against exact search. The vectors are a seeded mixture of clusters unless --data is given.

    SERVER_ARGUMENTS, behind --, go to 'embedkit serve'.
    """
    from rich.console import Console

    from embedkit.bench.index.plot import plot
    from embedkit.bench.index.run import report, run
    from embedkit.bench.serving.plot import check_suffix
    from embedkit.cli.bench.index_table import print_indexes

    if options["plot"] is not None:
        check_suffix(options["plot"])
    plan = _plan(options)
    results = run(plan, lambda line: click.echo(line, err=True))
    if options["out"] is not None:
        text = json.dumps(report(plan, results), indent=1)
        options["out"].write_text(text + "\n", encoding="utf-8")
    print_indexes(results, Console())
    if options["plot"] is not None:
        plot(results, options["plot"])


def _plan(options: Options) -> "Plan":
    from embedkit.bench.cores import parse_cores
    from embedkit.bench.index.kinds import KINDS, kind_named
    from embedkit.bench.index.run import Plan

    return Plan(
        sizes=options["size"],
        dims=options["dim"],
        data=options["data"],
        kinds=tuple(map(kind_named, options["kind"])) or KINDS,
        loads=tuple(map(_load, options["load"])),
        values=options["settings"],
        k=options["k"],
        queries=options["queries"],
        seconds=options["seconds"],
        rounds=options["rounds"],
        server_cores=parse_cores(options["server_cores"]),
        client_cores=parse_cores(options["client_cores"]),
        seed=options["seed"],
        arguments=options["server_arguments"],
    )


def _load(text: str) -> "Load":
    from embedkit.bench.index.figures import Load

    batch, times, calls = text.partition("x")
    if not (times and batch.isdigit() and calls.isdigit() and int(batch) and int(calls)):
        raise InvalidInput(f"expected a load such as 64x4, got {text!r}")
    return Load(int(batch), int(calls))
