"""Searching a collection: by image, and for near-duplicates within it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from embedkit.cli.connection import Target, connected
from embedkit.cli.index.table import print_table

if TYPE_CHECKING:
    from embedkit.types import Hit

__all__ = ["duplicates", "search"]

_FILTER = click.option(
    "--filter", "query_filter", default="", help="Only what this holds for: \"label = 'cat'\"."
)


@click.command(name="search")
@click.argument("name")
@click.argument("image", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-k", type=click.IntRange(1), default=10, show_default=True, help="Hits.")
@click.option("--offset", type=click.IntRange(0), default=0, help="Best hits to leave out.")
@click.option("--threshold", type=float, help="Least score of a hit.")
@_FILTER
@click.option("--exact", is_flag=True, help="Compare every vector.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per hit and line.")
@connected()
def search(
    target: Target,
    /,
    name: str,
    image: Path,
    query_filter: str,
    exact: bool,
    as_json: bool,
    **window: float | None,
) -> None:
    """Find the images in the collection NAME that are most like the file IMAGE."""
    from embedkit.types import SearchParams

    with target.connect() as client:
        (hits,) = client.search(
            name,
            images=image,
            filter=query_filter,
            params=SearchParams(exact=exact),
            **window,  # type: ignore[arg-type]
        )
    if as_json:
        for hit in hits:
            found = {"id": hit.id, "score": hit.score, "payload": hit.payload}
            click.echo(json.dumps(found, ensure_ascii=False))
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


@click.command(name="duplicates")
@click.argument("name")
@click.option(
    "--threshold",
    type=float,
    required=True,
    help="Least score of a pair; minus the squared distance under l2.",
)
@_FILTER
@click.option(
    "--neighbours",
    type=click.IntRange(1, 1000),
    default=100,
    show_default=True,
    help="Items within the threshold that are looked at for each.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per pair and line.")
@connected()
def duplicates(
    target: Target,
    name: str,
    threshold: float,
    query_filter: str,
    neighbours: int,
    as_json: bool,
) -> None:
    """List the pairs in the collection NAME that are alike, as they are found."""
    cut = False
    with target.connect() as client:
        for page in client.duplicates(
            name, threshold, neighbours=neighbours, filter=query_filter
        ):
            cut |= page.cut
            for pair in page.pairs:
                if as_json:
                    found = {"first": pair.first, "second": pair.second, "score": pair.score}
                    click.echo(json.dumps(found, ensure_ascii=False))
                else:
                    click.echo(f"{pair.score:.4f}  {pair.first}  {pair.second}")
    if cut:
        click.echo(
            f"warning: some have more than {neighbours} neighbours within the threshold; raise "
            "--neighbours to see all pairs",
            err=True,
        )
