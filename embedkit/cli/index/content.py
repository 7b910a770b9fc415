"""Filling and emptying collections."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from embedkit.cli.connection import Target, connected

if TYPE_CHECKING:
    from embedkit.data.source import Dataset

__all__ = ["add", "delete"]

# Images of one upsert call: the step of the progress bar.
_IMAGES_AT_ONCE = 1024


@click.command(name="add")
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


@click.command(name="delete")
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
