"""Collections to files and back."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from embedkit.cli.connection import Target, connected
from embedkit.errors import EmbedkitError

if TYPE_CHECKING:
    from embedkit.client.items import Batch
    from embedkit.client.sync import Client
    from embedkit.types import Collection, Record

__all__ = ["export", "load"]

# Records of one commit.
_AT_ONCE = 2048
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(name="export")
@click.argument("name")
@click.argument("file", type=_FILE)
@click.option("--filter", "query_filter", default="", help="Only what this holds for.")
@connected()
def export(target: Target, name: str, file: Path, query_filter: str) -> None:
    """Write ids, vectors and payloads of the collection NAME to FILE.

    Its suffix says how: .jsonl, .npz or .parquet (which needs embedkit[parquet]). What is
    written to the collection meanwhile comes at the end, ids that were there a second time.
    """
    from embedkit.data.records.file import write_records

    with target.connect() as client:
        collection = client.describe(name)
        records = client.scroll(name, filter=query_filter, with_vectors=True)
        count = write_records(file, collection, records)
    click.echo(f"wrote {count:,} records of {name} to {file}")


@click.command(name="import")
@click.argument("name")
@click.argument("file", type=_FILE)
@connected()
def load(target: Target, name: str, file: Path) -> None:
    """Store the records of FILE, which index export wrote, in the collection NAME.

    The collection is made as it was if there is none of this name (without its model if the
    server has none of that name); else existing ids are replaced. A model's vectors go only
    where that model's are.
    """
    from embedkit.data.records.file import read_records

    with read_records(file) as (collection, records), target.connect() as client:
        is_new = name not in {c.name for c in client.collections()}
        if is_new:
            _make(client, name, collection)
        try:
            batches = _batches(records)
            for _ in client.upsert_stream(name, batches, model_digest=collection.model_digest):
                pass
        except EmbedkitError:
            if is_new and not client.describe(name).count:
                client.drop_collection(name)
            raise
        count = client.describe(name).count
    click.echo(f"stored {file}; {name} holds {count:,}")


def _make(client: "Client", name: str, was: "Collection") -> None:
    """Make a collection as another one was; without its model where that is not served."""
    served = {model.name for model in client.models()}
    if was.model and was.model not in served:
        click.echo(f"no model {was.model} here: {name} is made without one", err=True)
    client.create_collection(
        name,
        dim=was.dim,
        metric=was.metric,
        kind=was.kind,
        storage=was.storage,
        model=was.model if was.model in served else "",
        limits=was.limits,
    )


def _batches(records: "Iterator[Record]") -> "Iterator[Batch]":
    """Cut records into commits; of an id that is there twice in one, the later counts."""
    part: dict[str, Record] = {}
    for record in records:
        part.pop(record.id, None)
        part[record.id] = record
        if len(part) == _AT_ONCE:
            yield _batch(part)
            part = {}
    if part:
        yield _batch(part)


def _batch(part: "dict[str, Record]") -> "Batch":
    import numpy as np

    from embedkit.client.items import Batch

    return Batch(
        list(part),
        vectors=np.array([r.vector for r in part.values()], np.float32),
        payloads=[r.payload for r in part.values()],
    )
