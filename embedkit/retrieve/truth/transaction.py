"""The statements of one write to a collection's SQLite file."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from embedkit.retrieve.filter.sql import Condition
from embedkit.retrieve.index.storage import Storage
from embedkit.retrieve.patience import Patience
from embedkit.retrieve.truth.view import matching_slots
from embedkit.types import Collection, Embeddings

__all__ = ["Position", "Transaction", "advanced"]

_LARGEST = (1 << 63) - 1


@dataclass(frozen=True)
class Position:
    """Where a collection stands: what it is, and the last slot given out."""

    collection: Collection
    last_slot: int


class Transaction:
    """The statements of one write."""

    def __init__(self, connection: sqlite3.Connection, storage: Storage) -> None:
        self._connection = connection
        self._storage = storage

    @contextmanager
    def part(self) -> Iterator[None]:
        """Undo the statements of a block that raises, and none of those before it."""
        self._connection.execute("SAVEPOINT part")
        try:
            yield
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK TO part")
                self._connection.execute("RELEASE part")
            raise
        self._connection.execute("RELEASE part")

    def remove(self, ids: Sequence[str]) -> list[int]:
        """Delete ids; returns the slots that they had."""
        rows = self._connection.execute(
            "SELECT slot FROM items WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps(ids),),
        ).fetchall()
        return self._removed(rows)

    def remove_matching(self, condition: Condition, patience: Patience) -> list[int]:
        """Delete the items for which a filter holds; returns the slots that they had.

        Raises:
            Cancelled, DeadlineExceeded: If they are not found in time; nothing is deleted.
        """
        with patience.over(self._connection):
            slots: list[int] = matching_slots(self._connection, condition, patience).tolist()
        return self._removed([(slot,) for slot in slots])

    def existing(self, ids: Sequence[str]) -> int:
        """How many of the ids, each given once, are there."""
        found = self._connection.execute(
            "SELECT count(*) FROM items WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps(ids),),
        )
        return int(found.fetchone()[0])

    def written_after(self, sequence: int, ids: Sequence[str]) -> tuple[str, int] | None:
        """One of the ids that was written after a number, with its own, or None."""
        if sequence > _LARGEST:  # as large as SQLite has
            return None
        found: tuple[str, int] | None = self._connection.execute(
            "SELECT id, sequence FROM items WHERE sequence > ? "
            "AND id IN (SELECT value FROM json_each(?)) LIMIT 1",
            (sequence, json.dumps(ids)),
        ).fetchone()
        return found

    def _removed(self, rows: list[tuple[int]]) -> list[int]:
        for table in ("items", "vectors") if rows else ():
            self._connection.executemany(f"DELETE FROM {table} WHERE slot = ?", rows)
        return [slot for (slot,) in rows]

    def add(
        self,
        position: Position,
        ids: Sequence[str],
        vectors: Embeddings,
        payloads: Sequence[str | None],
    ) -> None:
        """Insert rows under the slots after ``position.last_slot``, with the next sequence."""
        sequence = position.collection.sequence + 1
        slots = range(position.last_slot + 1, position.last_slot + 1 + len(ids))
        self._connection.executemany(
            "INSERT INTO items VALUES (?, ?, ?, ?)",
            ((s, i, sequence, p) for s, i, p in zip(slots, ids, payloads, strict=True)),
        )
        width = self._storage.width
        data = memoryview(self._storage.written(vectors))
        self._connection.executemany(
            "INSERT INTO vectors VALUES (?, ?)",
            ((s, data[n * width : (n + 1) * width]) for n, s in enumerate(slots)),
        )

    def stand_at(self, position: Position) -> None:
        """Record where the collection stands after this transaction."""
        self._connection.execute(
            "UPDATE collection SET model_digest = ?, sequence = ?, last_slot = ?",
            (
                position.collection.model_digest,
                position.collection.sequence,
                position.last_slot,
            ),
        )


def advanced(position: Position, *, slots: int, count: int, model_digest: str) -> Position:
    """The position after one more write."""
    collection = position.collection
    return Position(
        replace(
            collection,
            sequence=collection.sequence + 1,
            count=collection.count + count,
            model_digest=collection.model_digest or model_digest,
        ),
        position.last_slot + slots,
    )
