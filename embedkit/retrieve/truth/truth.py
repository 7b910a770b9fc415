"""One collection in SQLite: ids, vectors, payloads and sequence numbers. The only durable copy.

Every write of an id takes a new slot number, so a slot stands for one version of one vector for
ever: what was found under a slot can never be mixed with what was written later.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from embedkit.errors import StoreDamaged
from embedkit.retrieve.index.blocks import Slots
from embedkit.retrieve.index.storage import Storage, Stored
from embedkit.retrieve.patience import FOREVER, Patience
from embedkit.retrieve.store import ANSWER_BYTES, Row
from embedkit.retrieve.truth import schema
from embedkit.retrieve.truth.connections import (
    TIMEOUT_S,
    Readers,
    connect,
    refusing_writes,
    unread,
)
from embedkit.retrieve.truth.transaction import Position, Transaction
from embedkit.retrieve.truth.view import Content, View
from embedkit.types import Collection, CollectionLimits, Embeddings

__all__ = ["Truth", "create"]

FILE = "truth.sqlite"
_ROWS_AT_ONCE = 2048
_WAL_KEPT_BYTES = 64 << 20


def create(folder: Path, collection: Collection) -> None:
    """Write an empty collection into an existing folder.

    Raises:
        Unavailable: If the disk refuses.
    """
    with refusing_writes():
        connection = connect(folder / FILE, "rwc")
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            schema.make(connection, collection)
        finally:
            connection.close()


class Truth:
    """The rows of one collection. One thread may write at a time; any number may read.

    Args:
        folder: Where ``create`` made the collection.

    Raises:
        StoreDamaged: If the file cannot be read or has another schema.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._readers = Readers(self.path)
        try:
            self._writer = connect(self.path, "rw")
        except sqlite3.Error as error:
            raise unread(self.path, error) from error
        try:
            self._writer.execute("PRAGMA synchronous = FULL")
            self._writer.execute(f"PRAGMA journal_size_limit = {_WAL_KEPT_BYTES}")
            version = schema.migrate(self._writer)
        except sqlite3.Error as error:
            failure = unread(self.path, error)
            self._writer.close()
            raise failure from error
        if version != schema.VERSION:
            self._writer.close()
            raise StoreDamaged(
                f"expected schema {schema.VERSION} in {self.path}, got {version}"
            )
        try:
            collection = self.position().collection
        except StoreDamaged:
            self._writer.close()
            raise
        self.storage = Storage(collection.storage, collection.dim)

    def position(self) -> Position:
        """Read what the collection is and where it stands."""
        with self._readers.one() as connection:
            row = connection.execute(
                "SELECT name, dim, metric, kind, model, model_digest, "
                "(SELECT count(*) FROM items), sequence, storage, most_vectors, "
                "payload_bytes, last_slot FROM collection"
            ).fetchone()
        if row is None:
            raise StoreDamaged(f"expected a collection in {self.path}, got an empty file")
        *fields, most_vectors, payload_bytes, last_slot = row
        limits = CollectionLimits(most_vectors, payload_bytes)
        return Position(replace(Collection(*fields), limits=limits), last_slot)

    def slots(self, upto: int) -> Slots:
        """Every slot that is there, ascending, none above ``upto``."""
        with self._readers.one() as connection:
            found = connection.execute(
                "SELECT slot FROM items WHERE slot <= ? ORDER BY slot", (upto,)
            )
            return np.fromiter((slot for (slot,) in found), np.int64)

    def vectors(self, after: int, upto: int) -> Iterator[tuple[Slots, Stored]]:
        """Every vector of slots above ``after``, as stored, in order, some thousand at a time.

        Each part is read by itself, so that no reader keeps the log from being merged.

        Raises:
            StoreDamaged: If a vector has another size than the storage's.
        """
        while after < upto:
            with self._readers.one() as connection:
                rows = connection.execute(
                    "SELECT slot, data FROM vectors WHERE slot > ? AND slot <= ? "
                    "ORDER BY slot LIMIT ?",
                    (after, upto, _ROWS_AT_ONCE),
                ).fetchall()
            if not rows:
                return
            after = rows[-1][0]
            yield self._stored(rows)

    def fetch(self, slots: Slots) -> tuple[Slots, Embeddings]:
        """Those of some ascending slots that are there, with their vectors."""
        rows: list[tuple[int, bytes]] = []
        with self._readers.one() as connection:
            for start in range(0, len(slots), _ROWS_AT_ONCE):
                part = json.dumps(slots[start : start + _ROWS_AT_ONCE].tolist())
                rows += connection.execute(
                    "SELECT slot, data FROM vectors "
                    "WHERE slot IN (SELECT value FROM json_each(?)) ORDER BY slot",
                    (part,),
                )
        found, stored = self._stored(rows)
        return found, self.storage.decoded(stored)

    def _stored(self, rows: list[tuple[int, bytes]]) -> tuple[Slots, Stored]:
        try:
            vectors = self.storage.stored([row[1] for row in rows])
        except ValueError as error:
            raise StoreDamaged(f"expected vectors in {self.path}: {error}") from error
        return np.fromiter((row[0] for row in rows), np.int64, len(rows)), vectors

    def snapshot(self) -> str:
        """What identifies the index snapshot that belongs to this file; empty for none."""
        with self._readers.one() as connection:
            return str(connection.execute("SELECT snapshot FROM collection").fetchone()[0])

    def keep_snapshot(self, digest: str) -> None:
        """Record which index snapshot belongs to this file. Only for who may write.

        Raises:
            Unavailable: If the disk refuses.
        """
        with refusing_writes():
            self._writer.execute("UPDATE collection SET snapshot = ?", (digest,))

    def check(self, patience: Patience = FOREVER) -> list[str]:
        """What is wrong with the file, by SQLite's own checks and ours; empty if nothing is.

        Raises:
            Cancelled, DeadlineExceeded: Once nobody waits for it.
        """
        with self._readers.one() as connection, patience.over(connection):
            found = [row[0] for row in connection.execute("PRAGMA integrity_check(5)")]
            problems = [text for text in found if text != "ok"]
            for left, right in (("items", "vectors"), ("vectors", "items")):
                (count,) = connection.execute(
                    f"SELECT count(*) FROM {left} WHERE slot NOT IN (SELECT slot FROM {right})"
                ).fetchone()
                if count:
                    problems.append(f"{count} of {left} have no {right}")
        return problems

    def contents(
        self,
        slots: Slots,
        *,
        with_payload: bool,
        with_vectors: bool,
        answer_bytes: int = ANSWER_BYTES,
    ) -> dict[int, Content]:
        """What is under slots that still exist, all as of one commit; see ``View.contents``."""
        with self._readers.one() as connection:
            return View(connection, self.storage).contents(
                slots,
                with_payload=with_payload,
                with_vectors=with_vectors,
                answer_bytes=answer_bytes,
            )

    def by_id(
        self, ids: Sequence[str], *, with_vectors: bool, answer_bytes: int = ANSWER_BYTES
    ) -> dict[str, Row]:
        """Rows of ids that exist, all as of one commit; see ``View.by_id``."""
        with self._readers.one() as connection:
            return View(connection, self.storage).by_id(
                ids, with_vectors=with_vectors, answer_bytes=answer_bytes
            )

    @contextmanager
    def view(self, patience: Patience = FOREVER) -> Iterator[View]:
        """Lend one committed state to a reader: that of the first question.

        Raises:
            Cancelled, DeadlineExceeded: Out of the block, once nobody waits for it.
        """
        with self._readers.one() as connection:
            connection.execute("BEGIN")
            try:
                with patience.over(connection):
                    yield View(connection, self.storage, patience)
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    @contextmanager
    def writing(self) -> Iterator[Transaction]:
        """Run a block as one transaction: on disk when the block ends, or not at all.

        Raises:
            Unavailable: If the disk refuses.
        """
        with refusing_writes():
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield Transaction(self._writer, self.storage)
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    def compact(self, patience: Patience = FOREVER) -> int:
        """Rewrite the file without free pages; returns the bytes given back.

        The new pages lie in the log until no reader needs the old ones: where one does, they
        are merged into the file by a later write, and less is given back now.

        Raises:
            Cancelled, DeadlineExceeded: If nobody waits any more; the file is as before then.
            Unavailable: If the disk refuses.
        """
        before = self._size()
        with refusing_writes():
            with patience.over(self._writer):
                self._writer.execute("VACUUM")
            # Who holds writes back must not wait for readers.
            self._writer.execute("PRAGMA busy_timeout = 0")
            try:
                self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                self._writer.execute(f"PRAGMA busy_timeout = {TIMEOUT_S * 1000}")
        return max(0, before - self._size())

    def _size(self) -> int:
        files = (self.path, self.path.with_name(FILE + "-wal"))
        return sum(f.stat().st_size for f in files if f.exists())

    def close(self) -> None:
        """Close every idle connection; the write-ahead log is merged into the file."""
        self._readers.close()
        self._writer.close()
