"""One collection in SQLite: ids, vectors, payloads and sequence numbers. The only durable copy.

Every write of an id takes a new slot number, so a slot stands for one version of one vector for
ever: what was found under a slot can never be mixed with what was written later.
"""

import errno
import json
import os
import resource
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from embedkit.errors import StoreDamaged, Unavailable
from embedkit.retrieve import schema
from embedkit.retrieve.index.blocks import Slots
from embedkit.retrieve.index.storage import Storage, Stored
from embedkit.retrieve.patience import FOREVER, Patience
from embedkit.retrieve.store import ANSWER_BYTES, Row
from embedkit.retrieve.transaction import Position, Transaction
from embedkit.retrieve.view import Content, View
from embedkit.types import Collection, CollectionLimits, Embeddings

__all__ = ["Truth", "Vectors", "create", "refusing_writes"]

FILE = "truth.sqlite"
_ROWS_AT_ONCE = 2048
_WAL_KEPT_BYTES = 64 << 20
# What opening a collection takes; two more for every further reader at a time.
_DESCRIPTORS = 5


def create(folder: Path, collection: Collection) -> None:
    """Write an empty collection into an existing folder.

    Raises:
        Unavailable: If the disk refuses.
    """
    with refusing_writes():
        connection = _connect(folder / FILE, "rwc")
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
        self._idle: deque[sqlite3.Connection] = deque()
        self._closed = False
        try:
            self._writer = _connect(self.path, "rw")
        except sqlite3.Error as error:
            raise self._unread(error) from error
        try:
            self._writer.execute("PRAGMA synchronous = FULL")
            self._writer.execute(f"PRAGMA journal_size_limit = {_WAL_KEPT_BYTES}")
            version = schema.migrate(self._writer)
        except sqlite3.Error as error:
            failure = self._unread(error)
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
        with self._reading() as connection:
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
        with self._reading() as connection:
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
            with self._reading() as connection:
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
        with self._reading() as connection:
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
        with self._reading() as connection:
            return str(connection.execute("SELECT snapshot FROM collection").fetchone()[0])

    def keep_snapshot(self, digest: str) -> None:
        """Record which index snapshot belongs to this file. Only for who may write.

        Raises:
            Unavailable: If the disk refuses.
        """
        with refusing_writes():
            self._writer.execute("UPDATE collection SET snapshot = ?", (digest,))

    def check(self) -> list[str]:
        """What is wrong with the file, by SQLite's own checks and ours; empty if nothing is."""
        with self._reading() as connection:
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
        with self._reading() as connection:
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
        with self._reading() as connection:
            return View(connection, self.storage).by_id(
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
                    yield View(connection, self.storage)
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
            failure = self._unread(error)
            connection.close()
            raise failure from error
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
            connection.execute("PRAGMA query_only = ON")
        except sqlite3.Error as error:
            raise self._unread(error) from error
        return connection

    def _unread(self, error: sqlite3.Error) -> Unavailable | StoreDamaged:
        """Why the file could not be read."""
        if reason := _no_descriptor(error):
            return Unavailable(f"{self.path} cannot be opened: {reason}")
        return StoreDamaged(f"expected to read {self.path}, got {error}")


class Vectors:
    """The vectors of a collection up to some slot, for who derives something from them.

    Args:
        truth: Has them.
        upto: The highest slot.
        check: Called before each read; raises to end it.
    """

    def __init__(
        self, truth: Truth, upto: int, check: Callable[[], None] = lambda: None
    ) -> None:
        self._truth = truth
        self._upto = upto
        self._check = check

    def slots(self) -> Slots:
        """Every slot, ascending."""
        return self._truth.slots(self._upto)

    def stream(self, after: int = 0) -> Iterator[tuple[Slots, Embeddings]]:
        """Every vector behind a slot in ascending order, some thousand at a time."""
        for slots, rows in self.stored(after):
            yield slots, self._truth.storage.decoded(rows)

    def stored(self, after: int = 0) -> Iterator[tuple[Slots, Stored]]:
        """As ``stream``, as they are stored."""
        for part in self._truth.vectors(after, self._upto):
            self._check()
            yield part

    def fetch(self, slots: Slots) -> tuple[Slots, Embeddings]:
        """Those of some ascending slots that are there, with their vectors."""
        return self._truth.fetch(slots)


@contextmanager
def refusing_writes() -> Iterator[None]:
    """Say that the disk refuses, in our words."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        reason = _no_descriptor(error) or f"{error}; reads go on"
        raise Unavailable(f"the store cannot write: {reason}") from error


def _no_descriptor(error: BaseException) -> str:
    """What to do if a file could not be opened because too many are; else empty."""
    is_told = getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE)
    is_likely = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_CANTOPEN
    if not is_told and not (is_likely and _free_descriptors() < _DESCRIPTORS):
        return ""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        f"expected {_DESCRIPTORS} more file descriptors, got all {soft} in use ({error}); "
        f"raise the limit (ulimit -n, up to {hard} for this user), drop collections, or have "
        "fewer connections"
    )


def _free_descriptors() -> int:
    """How many more files can be opened, as far as it matters."""
    handles: list[int] = []
    with suppress(OSError):
        for _ in range(_DESCRIPTORS):
            handles.append(os.open(os.devnull, os.O_RDONLY))
    for handle in handles:
        os.close(handle)
    return len(handles)


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    """A connection in autocommit mode, for whichever thread holds it."""
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=30,
    )
