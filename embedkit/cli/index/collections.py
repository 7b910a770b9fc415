"""Making, describing and dropping collections."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Literal

import click

from embedkit.cli.connection import Target, connected
from embedkit.cli.index.table import print_table

if TYPE_CHECKING:
    from embedkit.types import Collection, IndexState

__all__ = ["compact", "create", "drop", "list_all", "stats", "verify"]


@click.command(name="create")
@click.argument("name")
@click.option("--model", default="", help="Model that embeds its images; gives the dimension.")
@click.option("--dim", type=click.IntRange(1), help="Dimension, for vectors without a model.")
@click.option(
    "--metric",
    type=click.Choice(["cosine", "inner_product", "l2"]),
    default="cosine",
    show_default=True,
)
@click.option(
    "--kind",
    default="auto",
    show_default=True,
    help="Kind of index: auto (by size), flat, ivf_flat, hnsw, sq8, pq.",
)
@click.option(
    "--storage",
    type=click.Choice(["float32", "float16", "int8"]),
    default="float32",
    show_default=True,
    help="How vectors are kept.",
)
@click.option("--max-vectors", type=click.IntRange(1), help="Most vectors at a time.")
@click.option("--max-payload-bytes", type=click.IntRange(1), help="Of one payload, at most.")
@connected()
def create(
    target: Target,
    /,
    name: str,
    model: str,
    dim: int | None,
    metric: 'Literal["cosine", "inner_product", "l2"]',
    kind: str,
    storage: str,
    **most: int | None,
) -> None:
    """Make the collection NAME, for a model's embeddings or for vectors of one dimension."""
    from embedkit.types import CollectionLimits

    limits = CollectionLimits(most["max_vectors"] or 0, most["max_payload_bytes"] or 0)
    with target.connect() as client:
        made = client.create_collection(
            name,
            dim=dim or 0,
            model=model,
            metric=metric,
            kind=kind,
            storage=storage,
            limits=limits,
        )
    source = f" of {made.model}" if made.model else ""
    click.echo(f"made {made.name}: {made.dim} dimensions{source}, {made.metric}")


@click.command(name="stats")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@connected()
def stats(target: Target, name: str, as_json: bool) -> None:
    """Print what the collection NAME holds."""
    with target.connect() as client:
        found = client.describe(name)
    if as_json:
        click.echo(json.dumps(asdict(found)))
        return
    for key, value in _facts(found).items():
        click.echo(f"{key:<13} {value}")


def _facts(collection: "Collection") -> dict[str, str]:
    limits = collection.limits
    facts = {
        "name": collection.name,
        "vectors": f"{collection.count:,}",
        "dimensions": str(collection.dim),
        "size": f"{collection.count * collection.dim * 4 / 1e6:,.1f} MB of vectors",
        "metric": collection.metric,
        "kind": collection.kind,
        "storage": collection.storage,
        "model": collection.model or "none",
        "model digest": collection.model_digest or "not known yet",
        "limits": f"{_most(limits.vectors, 'vectors')}, "
        f"{_most(limits.payload_bytes, 'bytes per payload')}",
        "last write": f"number {collection.sequence:,}",
    }
    return facts | ({} if collection.index is None else _index_facts(collection.index))


def _most(limit: int, noun: str) -> str:
    return f"{limit:,} {noun}" if limit else f"{noun} as the server allows"


def _index_facts(index: "IndexState") -> dict[str, str]:
    state = "being built" if index.is_building else "at rest"
    return {
        "index": f"{index.kind}, {state}, built {index.builds:,} times since the start",
        "index covers": f"{index.indexed:,} vectors up to write {index.sequence:,}, "
        f"{index.removed:,} of them removed",
        "beside it": f"{index.tail:,} vectors compared one by one",
        "index memory": f"{index.memory_bytes / 1e6:,.1f} MB",
    } | ({"index error": index.error} if index.error else {})


@click.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
@connected()
def list_all(target: Target, as_json: bool) -> None:
    """List the collections."""
    with target.connect() as client:
        found = client.collections()
    if as_json:
        click.echo(json.dumps([asdict(c) for c in found]))
        return
    rows = [[c.name, f"{c.count:,}", str(c.dim), c.metric, c.model] for c in found]
    print_table(["name", "vectors", "dim", "metric", "model"], rows, right={"vectors", "dim"})


@click.command(name="compact")
@click.argument("name")
@connected()
def compact(target: Target, name: str) -> None:
    """Give the space of removed vectors in the collection NAME back to the disk."""
    with target.connect() as client:
        reclaimed = client.compact(name)
    click.echo(f"reclaimed {reclaimed:,} bytes")


@click.command(name="drop")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@connected()
def drop(target: Target, name: str, yes: bool) -> None:
    """Remove the collection NAME and everything in it."""
    with target.connect() as client:
        count = client.describe(name).count
        if not yes:
            click.confirm(f"Remove {name} with {count:,} vectors?", abort=True)
        client.drop_collection(name)
    click.echo(f"dropped {name}")


@click.command(name="verify")
@click.argument("name")
@connected()
def verify(target: Target, name: str) -> None:
    """Compare the index of the collection NAME with the vectors that it was made of.

    Exit code 1 if they differ.
    """
    with target.connect(timeout_s=None) as client:
        found = client.verify(name)
    for problem in found.problems:
        click.echo(f"problem: {problem}", err=True)
    verdict = "differ" if found.problems else "agree"
    click.echo(
        f"{found.vectors:,} vectors and their index {verdict} at write {found.sequence:,}"
    )
    if found.problems:
        click.get_current_context().exit(1)
