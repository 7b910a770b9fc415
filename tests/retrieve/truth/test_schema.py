"""Files of older versions are brought to this one; those of newer ones are refused."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from embedkit.errors import StoreDamaged
from embedkit.retrieve.store import Query
from embedkit.retrieve.stores.local import LocalStore
from embedkit.retrieve.truth import schema
from embedkit.types import CollectionLimits

# As version 1 wrote it; never to be changed.
VERSION_1 = """
CREATE TABLE collection (
  only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
  name TEXT NOT NULL, dim INTEGER NOT NULL, metric TEXT NOT NULL, kind TEXT NOT NULL,
  model TEXT NOT NULL, model_digest TEXT NOT NULL,
  sequence INTEGER NOT NULL, last_slot INTEGER NOT NULL
);
CREATE TABLE items (
  slot INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, sequence INTEGER NOT NULL, payload TEXT
);
CREATE TABLE vectors (slot INTEGER PRIMARY KEY, data BLOB NOT NULL);
PRAGMA user_version = 1;
"""
# What made a file of version 2 of it; with another storage, without vectors in it.
VERSION_1_TO_2 = """
ALTER TABLE collection ADD COLUMN storage TEXT NOT NULL DEFAULT 'float32';
ALTER TABLE collection ADD COLUMN snapshot TEXT NOT NULL DEFAULT '';
DELETE FROM items; DELETE FROM vectors;
UPDATE collection SET storage = 'float16';
PRAGMA user_version = 2;
"""
VECTORS = np.arange(6, dtype=np.float32).reshape(3, 2) + 1


def version_1(folder: Path) -> Path:
    """A collection with the ids a, b and c of which b was written twice."""
    path = folder / "collections" / "c" / "truth.sqlite"
    path.parent.mkdir(parents=True)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(VERSION_1)
    connection.execute("INSERT INTO collection VALUES (1,'c',2,'l2','auto','m','sha256:1',2,4)")
    rows = [(1, "a", 1, None), (3, "c", 1, '{"n":1}'), (4, "b", 2, None)]
    connection.executemany("INSERT INTO items VALUES (?,?,?,?)", rows)
    data = [(row[0], VECTORS[i].tobytes()) for i, row in enumerate(rows)]
    connection.executemany("INSERT INTO vectors VALUES (?,?)", data)
    connection.commit()
    connection.close()
    return path


def test_version_2_has_no_limits_of_its_own(tmp_path: Path) -> None:
    path = version_1(tmp_path)
    connection = sqlite3.connect(path)
    connection.executescript(VERSION_1_TO_2)
    connection.close()
    store = LocalStore(tmp_path)
    collection = store.describe("c")
    assert (collection.storage, collection.limits) == ("float16", CollectionLimits())
    store.close()
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
    connection.execute("UPDATE collection SET most_vectors = 3, payload_bytes = 9")
    connection.commit()
    connection.close()
    store = LocalStore(tmp_path)
    assert store.describe("c").limits == CollectionLimits(3, 9)
    store.close()


def test_version_1_opens_as_ours(tmp_path: Path) -> None:
    path = version_1(tmp_path)
    for _ in range(2):
        store = LocalStore(tmp_path)
        collection = store.describe("c")
        assert (collection.count, collection.sequence, collection.storage) == (3, 2, "float32")
        assert (collection.model, collection.model_digest) == ("m", "sha256:1")
        rows = store.get("c", ["a", "c", "b"])
        held = [row.vector for row in rows if row is not None and row.vector is not None]
        assert np.array_equal(held, VECTORS)
        assert rows[1] is not None
        assert rows[1].payload == b'{"n":1}'
        answer = store.search("c", Query(VECTORS, k=1))
        assert [found[0] for found in answer.ids] == ["a", "c", "b"]
        assert store.verify("c").problems == ()
        store.close()
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
    connection.close()


def test_a_migrated_file_has_the_tables_of_a_new_one(tmp_path: Path) -> None:
    """Names, types and defaults of every column."""
    path = version_1(tmp_path)
    store = LocalStore(tmp_path)
    store.create(store.describe("c").__class__("new", 2))
    store.close()
    tables = []
    for file in (path, path.parent.parent / "new" / "truth.sqlite"):
        connection = sqlite3.connect(file)
        tables.append(
            [
                connection.execute(f"PRAGMA table_info({table})").fetchall()
                for table in ("collection", "items", "vectors")
            ]
        )
        connection.close()
    assert tables[0] == tables[1]


def test_a_migration_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = version_1(tmp_path)
    steps = {1: (*schema._STEPS[1], "ALTER TABLE absent ADD COLUMN x")}
    with monkeypatch.context() as patch:
        patch.setattr(schema, "_STEPS", steps)
        with pytest.raises(StoreDamaged, match="no such table: absent"):
            LocalStore(tmp_path)
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert len(connection.execute("PRAGMA table_info(collection)").fetchall()) == 9
    connection.close()
    store = LocalStore(tmp_path)
    assert store.describe("c").count == 3
    store.close()


def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    path = version_1(tmp_path)
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    connection.commit()
    connection.close()
    with pytest.raises(StoreDamaged, match=f"expected schema {schema.VERSION} .* got"):
        LocalStore(tmp_path)
