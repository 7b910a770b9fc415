"""What a vector store is: durable collections of (id, vector, payload) with search."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from embedkit.registry import Registry
from embedkit.retrieve.patience import FOREVER, Patience
from embedkit.types import Collection, Embeddings, Metric, SearchParams, Verification

__all__ = [
    "ANSWER_BYTES",
    "Answer",
    "Hits",
    "Page",
    "Query",
    "Row",
    "Scan",
    "VectorStore",
    "stores",
]

ANSWER_BYTES = 32 << 20
"""Bytes of payloads and vectors in one answer where nothing else is said."""


@dataclass(frozen=True, slots=True)
class Row:
    """One committed vector; the payload is the JSON text as it was given, never re-encoded.

    Attributes:
        id: The id given at upsert.
        sequence: Number of the write that stored it.
        payload: UTF-8 JSON object, or None.
        vector: (d,) float32, as the collection's storage holds it: with ``float32`` bit for bit
            as given, else rounded; None if not asked for.
        slot: Place in the order of writing, at least 1; a write of the id gives a new one.
    """

    id: str
    sequence: int
    payload: bytes | None = None
    vector: npt.NDArray[np.float32] | None = None
    slot: int = 0

    @property
    def size(self) -> int:
        """Bytes of payload and vector."""
        payload = 0 if self.payload is None else len(self.payload)
        return payload + (0 if self.vector is None else self.vector.nbytes)


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
        answer_bytes: Payloads and vectors of more bytes, with the ids of their hits, are
            refused instead of read.
        patience: How long the answer is waited for.
    """

    vectors: Embeddings
    k: int
    filter: str = ""
    model_digest: str = ""
    with_payload: bool = True
    with_vectors: bool = False
    params: SearchParams = field(default_factory=SearchParams)
    answer_bytes: int = ANSWER_BYTES
    patience: Patience = FOREVER


@dataclass(frozen=True, eq=False)
class Hits:
    """The neighbours of one query, best first; what there is of each is aligned.

    Attributes:
        ids: As given at upsert.
        scores: (m,) float32, higher is better.
        slots: (m,) int64, places in the order of writing.
        payloads: UTF-8 JSON object or None for each; None if not asked for, or if there are
            none.
        vectors: (m, d) float32, as the collection's storage holds them; None if not asked for.
    """

    ids: Sequence[str]
    scores: npt.NDArray[np.float32]
    slots: npt.NDArray[np.int64]
    payloads: Sequence[bytes | None] | None = None
    vectors: Embeddings | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def size(self) -> int:
        """Bytes of payloads and vectors."""
        payloads = sum(len(payload or b"") for payload in self.payloads or ())
        return payloads + (0 if self.vectors is None else self.vectors.nbytes)

    def only(self, ranks: Sequence[int]) -> "Hits":
        """The hits of some ranks."""
        chosen = np.asarray(ranks, np.int64)
        return Hits(
            [self.ids[rank] for rank in ranks],
            self.scores[chosen],
            self.slots[chosen],
            None if self.payloads is None else [self.payloads[rank] for rank in ranks],
            None if self.vectors is None else self.vectors[chosen],
        )


@dataclass(frozen=True)
class Answer:
    """The neighbours of each query; all of one committed state.

    Attributes:
        hits: One list per query.
        exact: Whether no neighbour can have been missed.
        collection: The collection as it was when searched.
    """

    hits: Sequence[Hits]
    exact: bool
    collection: Collection

    @property
    def ids(self) -> list[list[str]]:
        """The ids found for each query."""
        return [list(hits.ids) for hits in self.hits]

    @property
    def scores(self) -> tuple[npt.NDArray[np.float32], ...]:
        """The scores of each query's hits."""
        return tuple(hits.scores for hits in self.hits)


@dataclass(frozen=True)
class Scan:
    """Which part of a collection to read, in the order of writing.

    Attributes:
        after: Slot behind which to begin; 0 for the first.
        limit: Rows, at least 1.
        filter: Expression over payloads; empty for none.
        with_payload: Whether rows carry their payload.
        with_vectors: Whether rows carry their vector.
        answer_bytes: The rows end before their payloads and vectors have more bytes, but
            there is one at least.
        patience: How long the answer is waited for.
    """

    after: int = 0
    limit: int = 1000
    filter: str = ""
    with_payload: bool = True
    with_vectors: bool = False
    answer_bytes: int = ANSWER_BYTES
    patience: Patience = FOREVER


@dataclass(frozen=True)
class Page:
    """Rows of one committed state, in the order of writing.

    Attributes:
        rows: Ascending by slot.
        after: Slot behind which the next page begins; None if there is none.
        sequence: Number of the last write that the page shows.
    """

    rows: tuple[Row, ...]
    after: int | None
    sequence: int


class VectorStore(Protocol):
    """Durable collections. Every method is safe to call from many threads.

    A write that returned is on disk, and the next read sees it. An unknown collection is
    ``NotFound`` everywhere.
    """

    def create(self, collection: Collection) -> Collection:
        """Make an empty collection; what the argument says of its content is ignored.

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

    def inspect(self, name: str) -> Collection:
        """One collection as it is now, with how its index stands; dearer than ``describe``."""
        ...

    def upsert(
        self,
        name: str,
        ids: Sequence[str],
        vectors: Embeddings,
        payloads: Sequence[bytes | None] | None = None,
        *,
        model_digest: str = "",
        if_sequence: int | None = None,
        patience: Patience = FOREVER,
    ) -> Collection:
        """Store vectors, replacing those whose id exists; all of them or none.

        Args:
            name: The collection.
            ids: One per vector, each once.
            vectors: (n, d) float32, finite; not zero under cosine.
            payloads: A JSON object in UTF-8 or None for each vector; None for no payloads.
            model_digest: Model that made the vectors. The first one stated is remembered.
            if_sequence: Store only if none of the ids was written after this number; 0 if
                none of them may exist. An id that is not there, be it deleted, is no obstacle.
            patience: Nothing is stored once it is over.

        Returns:
            The collection after the commit; its ``sequence`` is this write's number.

        Raises:
            CollectionFull: If that is more than the collection's limits allow.
            InvalidInput: If anything above does not hold; nothing is stored.
            ModelMismatch: If the collection holds vectors of another model.
            SequenceConflict: If an id was written after ``if_sequence``.
            Unavailable: If the disk refuses the write.
        """
        ...

    def delete(
        self,
        name: str,
        ids: Sequence[str] = (),
        *,
        filter: str = "",
        patience: Patience = FOREVER,
    ) -> tuple[int, Collection]:
        """Remove ids, or else everything that a filter holds for, as one write.

        Args:
            name: The collection.
            ids: Unknown ones are skipped.
            filter: Expression over payloads; empty for none, which removes nothing.
            patience: Nothing is removed once it is over.

        Returns:
            How many were there, and the collection after the commit.

        Raises:
            InvalidInput: If there are both ids and a filter, or it is no filter.
        """
        ...

    def get(
        self,
        name: str,
        ids: Sequence[str],
        *,
        with_vectors: bool = True,
        answer_bytes: int = ANSWER_BYTES,
    ) -> tuple[Row | None, ...]:
        """Look ids up, in order; None for each that is not there.

        Raises:
            MessageTooLarge: If payloads and vectors are too many bytes for one answer.
        """
        ...

    def at(
        self,
        name: str,
        slots: Sequence[int],
        *,
        with_payload: bool = True,
        with_vectors: bool = False,
        answer_bytes: int = ANSWER_BYTES,
        patience: Patience = FOREVER,
    ) -> tuple[Row | None, ...]:
        """Look slots up, in order; None for each whose item was replaced or removed.

        What a search found before is so read later: under a slot is nothing but what was there
        then.

        Raises:
            MessageTooLarge: If payloads and vectors are too many bytes for one answer.
            DeadlineExceeded, Cancelled: If the patience is over.
        """
        ...

    def scan(self, name: str, scan: Scan) -> Page:
        """Read rows in the order of writing.

        Whoever goes on from page to page meets everything that is there all the time; what is
        written meanwhile comes at the end, for an id that was met before a second time.
        """
        ...

    def sample(self, name: str, scan: Scan, *, seed: int) -> Page:
        """Read ``scan.limit`` rows drawn at random without replacement; ``after`` is ignored.

        The same state and the same seed give the same rows.
        """
        ...

    def search(self, name: str, query: Query) -> Answer:
        """Return the nearest neighbours of each query.

        Equal scores come in the order in which they were written.

        Raises:
            InvalidInput: If k, dimension, a value or the filter is not allowed.
            MessageTooLarge: If payloads and vectors have more bytes than the query allows,
                each counted with every hit that has it.
            ModelMismatch: If the query's model is not the collection's.
            DeadlineExceeded, Cancelled: If the query's patience is over.
        """
        ...

    def verify(self, name: str, *, patience: Patience = FOREVER) -> Verification:
        """Compare what searches are answered from with the rows themselves.

        Raises:
            DeadlineExceeded, Cancelled: If the patience is over.
        """
        ...

    def compact(self, name: str, *, patience: Patience = FOREVER) -> int:
        """Give freed space back; returns the bytes reclaimed on disk.

        Raises:
            DeadlineExceeded, Cancelled: If the patience is over; no item is lost.
        """
        ...

    def close(self) -> None:
        """Release every file; calls in progress may fail."""
        ...


stores: Registry[Callable[[Path], VectorStore]] = Registry("embedkit.retrieve.stores", "store")


def metric_names() -> tuple[Metric, ...]:
    """Every metric, the default first."""
    return ("cosine", "inner_product", "l2")
