"""How much of the truth the searches of a collection find, measured with its own vectors."""

from dataclasses import dataclass, replace

import numpy as np

from embedkit.measures.recall import mean_interval, share_found
from embedkit.retrieve.store import Answer, Query, Scan, VectorStore
from embedkit.types import SearchParams

__all__ = ["Recall", "measured_recall"]


@dataclass(frozen=True)
class Recall:
    """What was measured.

    Attributes:
        value: Mean share of the true neighbours that were found, a fraction in [0, 1].
        interval: 95 %, over queries.
        queries: How many.
        k: Neighbours of each.
        sequence: Of the collection then.
    """

    value: float
    interval: tuple[float, float]
    queries: int
    k: int
    sequence: int


def measured_recall(
    store: VectorStore, name: str, *, k: int = 10, queries: int = 32, seed: int = 0
) -> Recall | None:
    """Search for some of a collection's vectors as everybody does, and exactly.

    A vector that is searched for does not count as its own neighbour. Writes between the two
    searches can make the value too low by what they added.

    Args:
        store: Holds the collection.
        name: Of the collection.
        k: Neighbours per query.
        queries: Vectors to search for; fewer in a smaller collection.
        seed: Of the choice.

    Returns:
        The measurement; None where the collection has no two vectors.
    """
    page = store.sample(
        name, Scan(limit=queries, with_payload=False, with_vectors=True), seed=seed
    )
    vectors = [row.vector for row in page.rows if row.vector is not None]
    if not vectors or store.describe(name).count < 2:
        return None
    query = Query(np.stack(vectors), k + 1, with_payload=False)
    ids = [row.id for row in page.rows]
    exact = replace(query, params=SearchParams(exact=True))
    found, true = (_others(ids, store.search(name, q), k) for q in (query, exact))
    answered = [(a, b) for a, b in zip(found, true, strict=True) if b]
    if not answered:
        return None
    shares = share_found([a for a, _ in answered], [b for _, b in answered])
    return Recall(
        float(shares.mean()),
        mean_interval(shares),
        len(shares),
        k,
        store.describe(name).sequence,
    )


def _others(ids: list[str], answer: Answer, k: int) -> list[list[float]]:
    """Scores of each query's hits but itself."""
    return [
        [s for id_, s in zip(hits.ids, hits.scores.tolist(), strict=True) if id_ != own][:k]
        for own, hits in zip(ids, answer.hits, strict=True)
    ]
