"""Searching a collection: by image, and for near-duplicates within it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embedkit.cli.connection import Target, connected
from embedkit.cli.index.effort import effort
from embedkit.cli.index.table import print_table, row_of

if TYPE_CHECKING:
    from embedkit.types import Hit

    Value = str | int | float | bool | None

__all__ = ["duplicates", "search"]

_FILTER = click.option(
    "--filter", "query_filter", default="", help="Only what this holds for: \"label = 'cat'\"."
)


@click.command(name="search")
@click.argument("name")
@click.argument("image", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "-k", type=click.IntRange(1), default=10, show_default=True, help="Hits, or groups of them."
)
@click.option("--offset", type=click.IntRange(0), default=0, help="Best hits to leave out.")
@click.option("--threshold", type=float, help="Least score of a hit.")
@click.option("--group-by", default="", help="The best hits of each value of a payload key.")
@click.option(
    "--group-size",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Hits of each group.",
)
@_FILTER
@click.option("--exact", is_flag=True, help="Compare every vector.")
@effort
@click.option("--json", "as_json", is_flag=True, help="One JSON object per hit and line.")
@connected()
def search(
    target: Target,
    /,
    name: str,
    image: Path,
    query_filter: str,
    group_by: str,
    group_size: int,
    as_json: bool,
    **numbers: float | None,
) -> None:
    """Find the images in the collection NAME that are most like the file IMAGE."""
    from embedkit.types import SearchParams

    window: dict[str, Any] = {key: numbers.pop(key) for key in ("k", "offset", "threshold")}
    _check_grouping(group_by, group_size, window)
    params = SearchParams(**numbers)  # type: ignore[arg-type]
    query: dict[str, Any] = {"filter": query_filter, "params": params}
    hits: list[tuple[Value, Hit]] = []
    with target.connect() as client:
        if group_by:
            (groups,) = client.search_groups(
                name, images=image, by=group_by, k=window["k"], size=group_size, **query
            )
            hits += [(group.value, hit) for group in groups for hit in group.hits]
        else:
            (found,) = client.search(name, images=image, **window, **query)
            hits += [(None, hit) for hit in found]
    _print_hits(hits, grouped=bool(group_by), as_json=as_json)


def _check_grouping(group_by: str, group_size: int, window: Mapping[str, Any]) -> None:
    if group_by and (window["offset"] or window["threshold"] is not None):
        raise click.UsageError("expected --group-by alone, got it with --offset or --threshold")
    if group_size > 1 and not group_by:
        raise click.UsageError(f"expected --group-by KEY with --group-size {group_size}")


def _print_hits(hits: "list[tuple[Value, Hit]]", *, grouped: bool, as_json: bool) -> None:
    """Print hits with the value of their group, if they are in groups."""
    if as_json:
        for value, hit in hits:
            named = {"group": value} if grouped else {}
            line = {**named, "id": hit.id, "score": hit.score, "payload": hit.payload}
            click.echo(json.dumps(line, ensure_ascii=False))
        return
    keys = list(dict.fromkeys(key for _, hit in hits for key in hit.payload or {}))
    rows = []
    for rank, (value, hit) in enumerate(hits, 1):
        group = [str(value)] if grouped else []
        rows.append([str(rank), *group, f"{hit.score:.4f}", hit.id, *row_of(hit.payload, keys)])
    headings = ["#", *(["group"] if grouped else []), "score", "id", *keys]
    print_table(headings, rows, right={"#", "score"})


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
