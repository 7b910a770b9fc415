"""The tables of a collection's SQLite file, and the way from older ones to these."""

import sqlite3

from embedkit.types import Collection

__all__ = ["VERSION", "make", "migrate"]

VERSION = 3
"""The version that this program reads and writes."""

_TABLES = f"""
CREATE TABLE collection (
  only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
  name TEXT NOT NULL, dim INTEGER NOT NULL, metric TEXT NOT NULL, kind TEXT NOT NULL,
  model TEXT NOT NULL, model_digest TEXT NOT NULL,
  sequence INTEGER NOT NULL, last_slot INTEGER NOT NULL,
  storage TEXT NOT NULL DEFAULT 'float32',
  -- The only index snapshot that belongs to this file; no other is read.
  snapshot TEXT NOT NULL DEFAULT '',
  -- What it may hold; 0 for no limit of its own.
  most_vectors INTEGER NOT NULL DEFAULT 0, payload_bytes INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE items (
  slot INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, sequence INTEGER NOT NULL, payload TEXT
);
-- Apart from the items, so that reading ids and payloads does not read vectors.
CREATE TABLE vectors (slot INTEGER PRIMARY KEY, data BLOB NOT NULL);
PRAGMA user_version = {VERSION};
"""

# What leads from each version to the next.
_STEPS = {
    1: (
        "ALTER TABLE collection ADD COLUMN storage TEXT NOT NULL DEFAULT 'float32'",
        "ALTER TABLE collection ADD COLUMN snapshot TEXT NOT NULL DEFAULT ''",
    ),
    2: (
        "ALTER TABLE collection ADD COLUMN most_vectors INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE collection ADD COLUMN payload_bytes INTEGER NOT NULL DEFAULT 0",
    ),
}


def make(connection: sqlite3.Connection, collection: Collection) -> None:
    """Write the tables of an empty collection."""
    connection.executescript(_TABLES)
    connection.execute(
        "INSERT INTO collection VALUES (1, ?, ?, ?, ?, ?, ?, 0, 0, ?, '', ?, ?)",
        (
            collection.name,
            collection.dim,
            collection.metric,
            collection.kind,
            collection.model,
            collection.model_digest,
            collection.storage,
            collection.limits.vectors,
            collection.limits.payload_bytes,
        ),
    )


def migrate(connection: sqlite3.Connection) -> int:
    """Bring an older file to this version, all of it or nothing.

    Returns:
        The version that the file has now; one without a way to ours is left as it is.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        while version in _STEPS:
            for statement in _STEPS[version]:
                connection.execute(statement)
            version += 1
            connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return version
