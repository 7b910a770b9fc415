"""What the searches of a collection miss."""

import json
import time
from typing import TYPE_CHECKING

import click

from embedkit.cli.connection import Target, connected
from embedkit.cli.index.effort import effort
from embedkit.cli.options.number import SEED
from embedkit.errors import NotFound

if TYPE_CHECKING:
    from embedkit.types import Hit

__all__ = ["recall"]


@click.command(name="recall", context_settings={"show_default": True})
@click.argument("name")
@click.option("-k", type=click.IntRange(1), default=10, help="Neighbours per query.")
@click.option("--queries", type=click.IntRange(1), default=100, help="Vectors to search for.")
@click.option("--seed", type=SEED, default=0, help="Of their choice.")
@effort
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@connected()
def recall(
    target: Target,
    /,
    name: str,
    k: int,
    queries: int,
    seed: int,
    as_json: bool,
    **params: float | None,
) -> None:
    """Compare the searches of the collection NAME with exact search.

    Some of its own vectors are searched for, both ways; none counts as its own neighbour.
    """
    import numpy as np

    from embedkit.measures.recall import mean_interval, share_found
    from embedkit.types import SearchParams

    with target.connect() as client:
        drawn = client.sample(name, queries, seed=seed, with_vectors=True)
        records = [r for r in drawn if r.vector is not None]
        if len(records) < min(2, queries):
            raise NotFound(f"expected at least two vectors in {name!r}, got {len(records)}")
        ways = SearchParams(**params), SearchParams(exact=True)  # type: ignore[arg-type]
        scores, seconds = [], []
        for way in ways:
            began = time.perf_counter()
            found = client.search(
                name,
                vectors=np.array([r.vector for r in records], np.float32),
                k=k + 1,
                with_payload=False,
                params=way,
            )
            seconds.append(time.perf_counter() - began)
            scores.append(
                [_others(r.id, hits, k) for r, hits in zip(records, found, strict=True)]
            )
    shares = share_found(*scores)
    low, high = mean_interval(shares)
    figures = {
        "collection": name,
        "k": k,
        "queries": len(shares),
        "recall": float(shares.mean()),
        "ci": [low, high],
        "worst": float(shares.min()),
        "served_ms_per_query": seconds[0] / len(shares) * 1e3,
        "exact_ms_per_query": seconds[1] / len(shares) * 1e3,
    }
    if as_json:
        click.echo(json.dumps(figures))
        return
    click.echo(
        f"recall@{k} {figures['recall']:.4f} [{low:.4f}, {high:.4f}] over {len(shares)} "
        f"queries, the worst {figures['worst']:.2f}; {figures['served_ms_per_query']:.2f} ms "
        f"per query, exact {figures['exact_ms_per_query']:.2f} ms"
    )


def _others(own: str, hits: "list[Hit]", k: int) -> list[float]:
    """Scores of the hits but the query itself."""
    return [hit.score for hit in hits if hit.id != own][:k]
