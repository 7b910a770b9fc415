"""Looking at what a collection holds: by id, or some of it at random."""

import json
from typing import TYPE_CHECKING

import click

from embedkit.cli.connection import Target, connected
from embedkit.cli.index.table import print_table, row_of

if TYPE_CHECKING:
    from embedkit.types import Record

__all__ = ["get", "sample"]

_VECTORS = click.option(
    "--vectors", "with_vectors", is_flag=True, help="With --json: them too."
)
_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")


@click.command(name="get")
@click.argument("name")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@_VECTORS
@_JSON
@connected()
def get(
    target: Target, name: str, ids: tuple[str, ...], with_vectors: bool, as_json: bool
) -> None:
    """Print what the collection NAME holds under IDs, in their order.

    Exit code 1 if one of them is not there.
    """
    _check_vectors(with_vectors, as_json)
    with target.connect() as client:
        found = client.get(name, ids, with_vectors=with_vectors)
    _print([record for record in found if record is not None], as_json)
    missing = [i for i, record in zip(ids, found, strict=True) if record is None]
    if missing:
        click.echo(f"not in {name}: {', '.join(missing)}", err=True)
        click.get_current_context().exit(1)


@click.command(name="sample")
@click.argument("name")
@click.option(
    "-n",
    "--n",
    "count",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="How many.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of their choice."
)
@click.option("--filter", "query_filter", default="", help="Only what this holds for.")
@_VECTORS
@_JSON
@connected()
def sample(
    target: Target,
    /,
    name: str,
    count: int,
    seed: int,
    query_filter: str,
    with_vectors: bool,
    as_json: bool,
) -> None:
    """Print records of the collection NAME drawn at random, in the order of writing."""
    _check_vectors(with_vectors, as_json)
    with target.connect() as client:
        found = client.sample(
            name, count, seed=seed, filter=query_filter, with_vectors=with_vectors
        )
    _print(found, as_json)


def _check_vectors(with_vectors: bool, as_json: bool) -> None:
    if with_vectors and not as_json:
        raise click.UsageError("expected --json with --vectors, got a table")


def _print(records: "list[Record]", as_json: bool) -> None:
    if as_json:
        for record in records:
            click.echo(json.dumps(_described(record), ensure_ascii=False))
        return
    keys = list(dict.fromkeys(key for r in records for key in r.payload or {}))
    rows = [[r.id, str(r.sequence), *row_of(r.payload, keys)] for r in records]
    print_table(["id", "sequence", *keys], rows, right={"sequence"})


def _described(record: "Record") -> dict[str, object]:
    described = {"id": record.id, "sequence": record.sequence, "payload": record.payload}
    if record.vector is not None:
        described["vector"] = record.vector.tolist()
    return described
