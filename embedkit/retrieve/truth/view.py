"""What a reader sees of a collection's SQLite file: one committed state, however long."""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from embedkit.retrieve.filter.sql import Condition
from embedkit.retrieve.index.blocks import Slots
from embedkit.retrieve.index.storage import Storage
from embedkit.retrieve.limits import check_bytes
from embedkit.retrieve.patience import FOREVER, Patience
from embedkit.retrieve.store import ANSWER_BYTES, Page, Row, Scan
from embedkit.types import Embeddings

__all__ = ["Content", "View", "matching_slots"]

_ROWS = "SELECT items.slot, id, sequence, {payload}, {data} FROM items {join} WHERE {which}"
_ROWS_AT_ONCE = 8192
_Found = tuple[int, str, int, bytes | None, bytes | None]


class Content(NamedTuple):
    """What is stored under a slot; None for what is not there or was not asked for.

    Attributes:
        payload: UTF-8 JSON object.
        data: The vector as the storage writes it.
    """

    payload: bytes | None
    data: bytes | None


class View:
    """Questions within one transaction.

    Args:
        connection: In a transaction that nobody else uses.
        storage: How vectors are written.
        patience: How long answers are waited for.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        storage: Storage,
        patience: Patience = FOREVER,
    ) -> None:
        self._connection = connection
        self.storage = storage
        self._patience = patience

    def sequence(self) -> int:
        """Number of the last write that the view sees."""
        row = self._connection.execute("SELECT sequence FROM collection").fetchone()
        return int(row[0])

    def matching(self, condition: Condition) -> Slots:
        """Ascending slots of the items for which a filter holds."""
        return matching_slots(self._connection, condition, self._patience)

    def contents(
        self,
        slots: Slots,
        *,
        with_payload: bool,
        with_vectors: bool,
        answer_bytes: int = ANSWER_BYTES,
    ) -> dict[int, Content]:
        """What is stored under those slots that exist.

        Raises:
            MessageTooLarge: If it has more bytes than that.
        """
        rows = self._among("items.slot", slots.tolist(), with_payload, with_vectors)
        found, size = {}, 0
        for slot, _, _, payload, data in rows:
            size += len(payload or b"") + len(data or b"")
            check_bytes(size, answer_bytes)
            found[slot] = Content(payload, data)
        return found

    def by_id(
        self, ids: Sequence[str], *, with_vectors: bool, answer_bytes: int = ANSWER_BYTES
    ) -> dict[str, Row]:
        """Rows of those ids that exist.

        Raises:
            MessageTooLarge: If their payloads and vectors have more bytes than that.
        """
        rows = map(self._row, self._among("id", ids, True, with_vectors))
        return {row.id: row for row in _within(rows, answer_bytes)}

    def at(
        self,
        slots: Sequence[int],
        *,
        with_payload: bool,
        with_vectors: bool,
        answer_bytes: int = ANSWER_BYTES,
    ) -> dict[int, Row]:
        """Rows of those slots that exist.

        Raises:
            MessageTooLarge: If their payloads and vectors have more bytes than that.
        """
        found = self._among("items.slot", slots, with_payload, with_vectors)
        return {row.slot: row for row in _within(map(self._row, found), answer_bytes)}

    def scan(self, scan: Scan, where: Condition | None) -> Page:
        """Rows behind a slot, in order, until there are enough."""
        which = "items.slot > :after"
        values: dict[str, str | int | float] = {"after": scan.after}
        if where is not None:
            where.prepare(self._connection, self._patience)
            which = f"{which} AND ({where.sql})"
            values |= where.parameters
        select = _select(f"{which} ORDER BY items.slot", scan.with_payload, scan.with_vectors)
        rows: list[Row] = []
        size = 0
        for found in self._connection.execute(select, values):
            row = self._row(found)
            size += row.size
            if rows and (len(rows) == scan.limit or size > scan.answer_bytes):
                return Page(tuple(rows), rows[-1].slot, self.sequence())
            rows.append(row)
        return Page(tuple(rows), None, self.sequence())

    def sample(self, scan: Scan, where: Condition | None, seed: int) -> Page:
        """Rows drawn without replacement; all of them where there are not enough."""
        slots = self._slots() if where is None else self.matching(where)
        if len(slots) > scan.limit:
            rng = np.random.default_rng(seed)
            slots = np.sort(rng.choice(slots, scan.limit, replace=False))
        found = self._among("items.slot", slots.tolist(), scan.with_payload, scan.with_vectors)
        rows = {row.slot: row for row in _within(map(self._row, found), scan.answer_bytes)}
        return Page(tuple(rows[slot] for slot in slots.tolist()), None, self.sequence())

    def names(self) -> Iterator[tuple[Slots, list[str]]]:
        """Every id in ascending order of slots, some thousand at a time."""
        cursor = self._connection.execute("SELECT slot, id FROM items ORDER BY slot")
        while rows := cursor.fetchmany(_ROWS_AT_ONCE):
            slots = np.fromiter((row[0] for row in rows), np.int64, len(rows))
            yield slots, [row[1] for row in rows]

    def has_payloads(self) -> bool:
        """Whether any item has one."""
        found = self._connection.execute(
            "SELECT EXISTS (SELECT 1 FROM items WHERE payload IS NOT NULL)"
        )
        return bool(found.fetchone()[0])

    def vectors(self) -> Iterator[tuple[Slots, Embeddings]]:
        """Every vector in ascending order of slots, some thousand at a time."""
        cursor = self._connection.execute("SELECT slot, data FROM vectors ORDER BY slot")
        while rows := cursor.fetchmany(_ROWS_AT_ONCE):
            self._patience.check()
            slots = np.fromiter((row[0] for row in rows), np.int64, len(rows))
            yield slots, self.storage.read([row[1] for row in rows])

    def _slots(self) -> Slots:
        """Every slot, ascending."""
        found = self._connection.execute("SELECT slot FROM items ORDER BY slot")
        return np.fromiter((slot for (slot,) in found), np.int64)

    def _among(
        self, key: str, values: Sequence[int] | Sequence[str], payload: bool, vectors: bool
    ) -> Iterable[_Found]:
        which = f"{key} IN (SELECT value FROM json_each(?))"
        select = _select(which, payload, vectors)
        return self._connection.execute(select, (json.dumps(values),))

    def _row(self, found: _Found) -> Row:
        slot, id_, sequence, payload, data = found
        vector = None if data is None else self.storage.read(data)[0]
        return Row(id_, sequence, payload, vector, slot)


def _select(which: str, payload: bool, vectors: bool) -> str:
    return _ROWS.format(
        payload="CAST(payload AS BLOB)" if payload else "NULL",
        data="data" if vectors else "NULL",
        join="JOIN vectors USING (slot)" if vectors else "",
        which=which,
    )


def _within(rows: Iterable[Row], answer_bytes: int) -> Iterator[Row]:
    """The rows, up to the one that is too much."""
    size = 0
    for row in rows:
        if row.payload is not None or row.vector is not None:
            size += row.size
        check_bytes(size, answer_bytes)
        yield row


def matching_slots(
    connection: sqlite3.Connection, condition: Condition, patience: Patience
) -> Slots:
    """Ascending slots of the items for which a filter holds."""
    condition.prepare(connection, patience)
    found = connection.execute(
        f"SELECT slot FROM items WHERE {condition.sql} ORDER BY slot", condition.parameters
    )
    return np.fromiter((slot for (slot,) in found), np.int64)
