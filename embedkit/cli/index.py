"""``embedkit index``: collections of a server, filled from DATA and searched by image."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from embedkit.cli.connection import Target, connected

if TYPE_CHECKING:
    from embedkit.data.source import Dataset
    from embedkit.types import Collection, Hit

__all__ = ["command"]

# Images of one upsert call: the step of the progress bar.
_IMAGES_AT_ONCE = 1024


@click.group(name="index")
def command() -> None:
    """Create, fill, search and inspect collections of a server."""


@command.command(name="create")
@click.argument("name")
@click.option("--model", default="", help="Model that embeds its images; gives the dimension.")
@click.option("--dim", type=click.IntRange(1), help="Dimension, for vectors without a model.")
@click.option(
    "--metric",
    type=click.Choice(["cosine", "inner_product", "l2"]),
    default="cosine",
    show_default=True,
)
@click.option("--kind", default="auto", show_default=True, help="Kind of index.")
@connected()
def create(
    target: Target,
    name: str,
    model: str,
    dim: int | None,
    metric: 'Literal["cosine", "inner_product", "l2"]',
    kind: str,
) -> None:
    """Make the collection NAME, for a model's embeddings or for vectors of one dimension."""
    with target.connect() as client:
        made = client.create_collection(
            name, dim=dim or 0, model=model, metric=metric, kind=kind
        )
    source = f" of {made.model}" if made.model else ""
    click.echo(f"made {made.name}: {made.dim} dimensions{source}, {made.metric}")


@command.command(name="add")
@click.argument("name")
@click.argument("data")
@click.option("--prefix", default="", help="Put in front of every id, to keep sources apart.")
@click.option("--strict", is_flag=True, help="An unreadable image is an error, not skipped.")
@connected()
def add(target: Target, name: str, data: str, prefix: str, strict: bool) -> None:
    """Embed the images of DATA on the server and store them in the collection NAME.

    Ids are those of DATA: paths within a folder or archive, split and position in arrays.
    Payloads hold the label, and the path of image files.
    """
    from rich.console import Console
    from rich.progress import track

    from embedkit.data.source import load_dataset

    console = Console(stderr=True)
    with target.connect() as client:
        client.describe(name)  # before the images are read
        with console.status("reading the images"):
            dataset = load_dataset(data, strict=strict)
        starts = range(0, len(dataset), _IMAGES_AT_ONCE)
        for start in track(starts, "embedding and storing", console=console):
            part = slice(start, start + _IMAGES_AT_ONCE)
            client.upsert(
                name,
                [prefix + i for i in dataset.ids[part]],
                images=dataset.images[part],
                payloads=_payloads(dataset, data, part),
            )
        count = client.describe(name).count
    skipped = f", left out {len(dataset.skipped):,}" if dataset.skipped else ""
    click.echo(f"stored {len(dataset):,} images{skipped}; {name} holds {count:,}")


def _payloads(dataset: "Dataset", data: str, part: slice) -> list[dict[str, object]]:
    """Label and path of each image, as far as it has them."""
    payloads: list[dict[str, object]] = [{} for _ in dataset.ids[part]]
    if dataset.labels is not None:
        for payload, label in zip(payloads, dataset.labels[part], strict=True):
            payload["label"] = dataset.class_names[label]
    if isinstance(dataset.images, tuple):
        for payload, i in zip(payloads, dataset.ids[part], strict=True):
            file = Path(data) / i
            payload["path"] = str(file) if file.is_file() else i
    return payloads


@command.command(name="search")
@click.argument("name")
@click.argument("image", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-k", type=click.IntRange(1), default=10, show_default=True, help="Hits.")
@click.option(
    "--filter", "query_filter", default="", help="Only what this holds for: \"label = 'cat'\"."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per hit and line.")
@connected()
def search(
    target: Target,
    name: str,
    image: Path,
    k: int,
    query_filter: str,
    as_json: bool,
) -> None:
    """Find the images in the collection NAME that are most like the file IMAGE."""
    with target.connect() as client:
        (hits,) = client.search(name, images=image, k=k, filter=query_filter)
    if as_json:
        for hit in hits:
            click.echo(json.dumps(asdict(hit), ensure_ascii=False))
    else:
        _print_hits(hits)


def _print_hits(hits: "list[Hit]") -> None:
    keys = list(dict.fromkeys(key for hit in hits for key in hit.payload or {}))
    rows = []
    for rank, hit in enumerate(hits, 1):
        values = hit.payload or {}
        shown = [str(values.get(key, "")) for key in keys]
        rows.append([str(rank), f"{hit.score:.4f}", hit.id, *shown])
    _print_table(["#", "score", "id", *keys], rows, right={"#", "score"})


@command.command(name="delete")
@click.argument("name")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--filter", "query_filter", default="", help="Remove what this holds for.")
@connected()
def delete(target: Target, name: str, ids: tuple[str, ...], query_filter: str) -> None:
    """Remove IDs from the collection NAME, or everything that a filter holds for.

    Unknown IDs are skipped.
    """
    if bool(ids) == bool(query_filter):
        raise click.UsageError(f"expected IDs or --filter, got {'both' if ids else 'neither'}")
    with target.connect() as client:
        deleted = client.delete(name, ids, filter=query_filter)
    click.echo(f"deleted {deleted} of {len(set(ids))}" if ids else f"deleted {deleted}")


@command.command(name="stats")
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
    return {
        "name": collection.name,
        "vectors": f"{collection.count:,}",
        "dimensions": str(collection.dim),
        "size": f"{collection.count * collection.dim * 4 / 1e6:,.1f} MB of vectors",
        "metric": collection.metric,
        "kind": collection.kind,
        "model": collection.model or "none",
        "model digest": collection.model_digest or "not known yet",
        "last write": f"number {collection.sequence:,}",
    }


@command.command(name="list")
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
    _print_table(["name", "vectors", "dim", "metric", "model"], rows, right={"vectors", "dim"})


@command.command(name="compact")
@click.argument("name")
@connected()
def compact(target: Target, name: str) -> None:
    """Give the space of removed vectors in the collection NAME back to the disk."""
    with target.connect() as client:
        reclaimed = client.compact(name)
    click.echo(f"reclaimed {reclaimed:,} bytes")


@command.command(name="drop")
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


def _print_table(headings: list[str], rows: list[list[str]], *, right: set[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(
            heading, justify="right" if heading in right else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    # A file or a pipe gets whole lines; a terminal folds them.
    console = Console() if sys.stdout.isatty() else Console(width=10_000)
    console.print(table)
