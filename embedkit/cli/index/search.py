"""Searching a collection."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from embedkit.cli.connection import Target, connected
from embedkit.cli.index.table import print_table

if TYPE_CHECKING:
    from embedkit.types import Hit

__all__ = ["search"]


@click.command(name="search")
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
    print_table(["#", "score", "id", *keys], rows, right={"#", "score"})
