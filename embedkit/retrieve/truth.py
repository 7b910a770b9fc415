"""One collection in SQLite: ids, vectors, payloads and sequence numbers. The only durable copy.

Every write of an id takes a new slot number, so a slot stands for one version of one vector for
ever: what was found under a slot can never be mixed with what was written later.
"""

import sqlite3
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from embedkit.errors import StoreDamaged, Unavailable
from embedkit.retrieve.index.blocks import Slots
from embedkit.retrieve.patience import FOREVER, Patience
from embedkit.retrieve.store import ANSWER_BYTES, Row
from embedkit.retrieve.transaction import Position, Transaction
from embedkit.retrieve.view import View
from embedkit.types import Collection, Embeddings

__all__ = ["Truth", "create", "refusing_writes"]

FILE = "truth.sqlite"
SCHEMA_VERSION = 1
_SCHEMA = f"""
CREATE TABLE collection (
  only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
  name TEXT NOT NULL, dim INTEGER NOT NULL, metric TEXT NOT NULL, kind TEXT NOT NULL,
  model TEXT NOT NULL, model_digest TEXT NOT NULL,
  sequence INTEGER NOT NULL, last_slot INTEGER NOT NULL
);
CREATE TABLE items (
  slot INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, sequence INTEGER NOT NULL, payload TEXT
);
-- Apart from the items, so that reading ids and payloads does not read vectors.
CREATE TABLE vectors (slot INTEGER PRIMARY KEY, data BLOB NOT NULL);
PRAGMA user_version = {SCHEMA_VERSION};
"""
_ROWS_AT_ONCE = 8192
_WAL_KEPT_BYTES = 64 << 20


def create(folder: Path, collection: Collection) -> None:
    """Write an empty collection into an existing folder.

    Raises:
        Unavailable: If the disk refuses.
    """
    with refusing_writes():
        connection = _connect(folder / FILE, "rwc")
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(_SCHEMA)
            connection.execute(
                "INSERT INTO collection VALUES (1, ?, ?, ?, ?, ?, ?, 0, 0)",
                (
                    collection.name,
                    collection.dim,
                    collection.metric,
                    collection.kind,
                    collection.model,
                    collection.model_digest,
                ),
            )
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
        self._idle: deque[sqlite3.Connection] = deque()
        self._closed = False
        try:
            self._writer = _connect(self.path, "rw")
            self._writer.execute("PRAGMA synchronous = FULL")
            self._writer.execute(f"PRAGMA journal_size_limit = {_WAL_KEPT_BYTES}")
            version = self._writer.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.Error as error:
            raise StoreDamaged(f"expected a collection at {self.path}, got {error}") from error
        if version != SCHEMA_VERSION:
            self._writer.close()
            raise StoreDamaged(
                f"expected schema {SCHEMA_VERSION} in {self.path}, got {version}"
            )

    def position(self) -> Position:
        """Read what the collection is and where it stands."""
        with self._reading() as connection:
            row = connection.execute(
                "SELECT name, dim, metric, kind, model, model_digest, "
                "(SELECT count(*) FROM items), sequence, last_slot FROM collection"
            ).fetchone()
        if row is None:
            raise StoreDamaged(f"expected a collection in {self.path}, got an empty file")
        return Position(Collection(*row[:-1]), row[-1])

    def vectors(self, dim: int) -> Iterator[tuple[Slots, Embeddings]]:
        """Every vector in ascending order of slots, some thousand at a time.

        Raises:
            StoreDamaged: If a vector has another size than (dim,) float32.
        """
        with self._reading() as connection:
            cursor = connection.execute("SELECT slot, data FROM vectors ORDER BY slot")
            while rows := cursor.fetchmany(_ROWS_AT_ONCE):
                data = b"".join(row[1] for row in rows)
                if any(len(row[1]) != 4 * dim for row in rows):
                    raise StoreDamaged(
                        f"expected vectors of {4 * dim} bytes in {self.path}, got others"
                    )
                slots = np.fromiter((row[0] for row in rows), np.int64, len(rows))
                yield slots, np.frombuffer(data, "<f4").reshape(len(rows), dim)

    def by_slot(
        self,
        slots: Sequence[int],
        *,
        with_payload: bool,
        with_vectors: bool,
        answer_bytes: int = ANSWER_BYTES,
    ) -> dict[int, Row]:
        """Rows of slots that still exist, all as of one commit; see ``View.by_slot``."""
        with self._reading() as connection:
            return View(connection).by_slot(
                slots,
                with_payload=with_payload,
                with_vectors=with_vectors,
                answer_bytes=answer_bytes,
            )

    def by_id(
        self, ids: Sequence[str], *, with_vectors: bool, answer_bytes: int = ANSWER_BYTES
    ) -> dict[str, Row]:
        """Rows of ids that exist, all as of one commit; see ``View.by_id``."""
        with self._reading() as connection:
            return View(connection).by_id(
                ids, with_vectors=with_vectors, answer_bytes=answer_bytes
            )

    @contextmanager
    def view(self, patience: Patience = FOREVER) -> Iterator[View]:
        """Lend one committed state to a reader: that of the first question.

        Raises:
            Cancelled, DeadlineExceeded: Out of the block, once nobody waits for it.
        """
        with self._reading() as connection:
            connection.execute("BEGIN")
            try:
                with patience.over(connection):
                    yield View(connection)
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
                yield Transaction(self._writer)
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    def compact(self) -> int:
        """Rewrite the file without free pages; returns the bytes given back."""
        before = self._size()
        with refusing_writes():
            self._writer.execute("VACUUM")
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return max(0, before - self._size())

    def _size(self) -> int:
        files = (self.path, self.path.with_name(FILE + "-wal"))
        return sum(f.stat().st_size for f in files if f.exists())

    def close(self) -> None:
        """Close every idle connection; the write-ahead log is merged into the file."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()
        self._writer.close()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection of its own to one reader."""
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._reader()
        try:
            yield connection
        except sqlite3.DatabaseError as error:
            connection.close()
            raise StoreDamaged(f"expected to read {self.path}, got {error}") from error
        except BaseException:
            connection.close()
            raise
        if self._closed:
            connection.close()
        else:
            self._idle.append(connection)

    def _reader(self) -> sqlite3.Connection:
        try:
            connection = _connect(self.path, "rw")
        except sqlite3.Error as error:
            raise StoreDamaged(f"expected a collection at {self.path}, got {error}") from error
        connection.execute("PRAGMA query_only = ON")
        return connection


@contextmanager
def refusing_writes() -> Iterator[None]:
    """Say that the disk refuses, in our words."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise Unavailable(f"the store cannot write: {error}; reads go on") from error


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    """A connection in autocommit mode, for whichever thread holds it."""
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=30,
    )
