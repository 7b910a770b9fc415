"""What a reader sees of a collection's SQLite file: one committed state, however long."""

import json
import sqlite3
from collections.abc import Sequence

import numpy as np

from embedkit.retrieve.blocks import Slots
from embedkit.retrieve.filter.sql import Condition
from embedkit.retrieve.store import Row

__all__ = ["View", "matching_slots"]

_ROWS = (
    "SELECT items.slot, id, sequence, {payload}, {data} FROM items {join} "
    "WHERE {key} IN (SELECT value FROM json_each(?))"
)


class View:
    """Questions within one transaction.

    Args:
        connection: In a transaction that nobody else uses.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def sequence(self) -> int:
        """Number of the last write that the view sees."""
        row = self._connection.execute("SELECT sequence FROM collection").fetchone()
        return int(row[0])

    def matching(self, condition: Condition) -> Slots:
        """Ascending slots of the items for which a filter holds."""
        return matching_slots(self._connection, condition)

    def by_slot(
        self, slots: Sequence[int], *, with_payload: bool, with_vectors: bool
    ) -> dict[int, Row]:
        """Rows of those slots that exist."""
        return dict(self._rows("items.slot", slots, with_payload, with_vectors))

    def by_id(self, ids: Sequence[str], *, with_vectors: bool) -> dict[str, Row]:
        """Rows of those ids that exist."""
        return {row.id: row for _, row in self._rows("id", ids, True, with_vectors)}

    def _rows(
        self, key: str, values: Sequence[int] | Sequence[str], payload: bool, vectors: bool
    ) -> list[tuple[int, Row]]:
        query = _ROWS.format(
            payload="payload" if payload else "NULL",
            data="data" if vectors else "NULL",
            join="JOIN vectors USING (slot)" if vectors else "",
            key=key,
        )
        return [
            (
                slot,
                Row(
                    id=id_,
                    sequence=sequence,
                    payload=None if text is None else text.encode(),
                    vector=None if data is None else np.frombuffer(data, "<f4"),
                ),
            )
            for slot, id_, sequence, text, data in self._connection.execute(
                query, (json.dumps(values),)
            )
        ]


def matching_slots(connection: sqlite3.Connection, condition: Condition) -> Slots:
    """Ascending slots of the items for which a filter holds."""
    condition.prepare(connection)
    found = connection.execute(
        f"SELECT slot FROM items WHERE {condition.sql} ORDER BY slot", condition.parameters
    )
    return np.fromiter((slot for (slot,) in found), np.int64)
