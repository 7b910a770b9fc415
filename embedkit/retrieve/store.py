"""What a vector store is: durable collections of (id, vector, payload) with search."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from embedkit.registry import Registry
from embedkit.types import Collection, Embeddings, Metric, SearchParams

__all__ = ["Answer", "Query", "Row", "VectorStore", "stores"]


@dataclass(frozen=True, slots=True)
class Row:
    """One committed vector; the payload is the JSON text as it was given, never re-encoded.

    Attributes:
        id: The id given at upsert.
        sequence: Number of the write that stored it.
        payload: UTF-8 JSON object, or None.
        vector: (d,) float32, bit for bit as given; None if not asked for.
    """

    id: str
    sequence: int
    payload: bytes | None = None
    vector: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Query:
    """What to search for.

    Attributes:
        vectors: (n, d) float32, one query per row.
        k: Neighbours per query, at least 1; fewer come back from a smaller collection.
        filter: Expression over payloads; empty for none.
        model_digest: Model that made the vectors; empty skips the check.
        with_payload: Whether rows carry their payload.
        with_vectors: Whether rows carry their vector.
        params: How hard the index tries.
    """

    vectors: Embeddings
    k: int
    filter: str = ""
    model_digest: str = ""
    with_payload: bool = True
    with_vectors: bool = False
    params: SearchParams = SearchParams()


@dataclass(frozen=True)
class Answer:
    """The neighbours of each query, best first; all of one committed state.

    Attributes:
        rows: One tuple per query.
        scores: One float32 array per query, higher is better, aligned with ``rows``.
        exact: Whether no neighbour can have been missed.
        collection: The collection as it was when searched.
    """

    rows: tuple[tuple[Row, ...], ...]
    scores: tuple[npt.NDArray[np.float32], ...]
    exact: bool
    collection: Collection


class VectorStore(Protocol):
    """Durable collections. Every method is safe to call from many threads.

    A write that returned is on disk, and the next read sees it. An unknown collection is
    ``NotFound`` everywhere.
    """

    def create(self, collection: Collection) -> Collection:
        """Make an empty collection; ``count`` and ``sequence`` of the argument are ignored.

        Raises:
            AlreadyExists: If the name is taken.
            InvalidInput: If name, dimension, metric or kind is not allowed.
        """
        ...

    def drop(self, name: str) -> None:
        """Remove a collection and its files."""
        ...

    def collections(self) -> tuple[Collection, ...]:
        """Every collection, by name."""
        ...

    def describe(self, name: str) -> Collection:
        """One collection as it is now."""
        ...

    def upsert(
        self,
        name: str,
        ids: Sequence[str],
        vectors: Embeddings,
        payloads: Sequence[bytes | None] | None = None,
        *,
        model_digest: str = "",
    ) -> Collection:
        """Store vectors, replacing those whose id exists; all of them or none.

        Args:
            name: The collection.
            ids: One per vector, each once.
            vectors: (n, d) float32, finite; not zero under cosine.
            payloads: A JSON object in UTF-8 or None for each vector; None for no payloads.
            model_digest: Model that made the vectors. The first one stated is remembered.

        Returns:
            The collection after the commit; its ``sequence`` is this write's number.

        Raises:
            InvalidInput: If anything above does not hold; nothing is stored.
            ModelMismatch: If the collection holds vectors of another model.
            Unavailable: If the disk refuses the write.
        """
        ...

    def delete(
        self, name: str, ids: Sequence[str] = (), *, filter: str = ""
    ) -> tuple[int, Collection]:
        """Remove ids, or else everything that a filter holds for, as one write.

        Args:
            name: The collection.
            ids: Unknown ones are skipped.
            filter: Expression over payloads; empty for none, which removes nothing.

        Returns:
            How many were there, and the collection after the commit.

        Raises:
            InvalidInput: If there are both ids and a filter, or it is no filter.
        """
        ...

    def get(
        self, name: str, ids: Sequence[str], *, with_vectors: bool = True
    ) -> tuple[Row | None, ...]:
        """Look ids up, in order; None for each that is not there."""
        ...

    def search(self, name: str, query: Query) -> Answer:
        """Return the nearest neighbours of each query.

        Equal scores come in the order in which they were written.

        Raises:
            InvalidInput: If k, dimension, a value or the filter is not allowed.
            ModelMismatch: If the query's model is not the collection's.
        """
        ...

    def compact(self, name: str) -> int:
        """Give freed space back; returns the bytes reclaimed on disk."""
        ...

    def close(self) -> None:
        """Release every file; calls in progress may fail."""
        ...


stores: Registry[Callable[[Path], VectorStore]] = Registry("embedkit.retrieve.stores", "store")


def metric_names() -> tuple[Metric, ...]:
    """Every metric, the default first."""
    return ("cosine", "inner_product", "l2")
