"""The local store on disk: reopening, damage, leftovers, a full disk, kills, speed."""

import logging
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from embedkit.errors import (
    AlreadyExists,
    InvalidInput,
    MessageTooLarge,
    NotFound,
    StoreDamaged,
    Unavailable,
)
from embedkit.retrieve.index.layered import LayeredIndex
from embedkit.retrieve.limits import Limits
from embedkit.retrieve.store import Query
from embedkit.retrieve.stores.local import LocalStore
from embedkit.types import Collection


def vectors(rng: np.random.Generator, count: int, dim: int = 8) -> np.ndarray:
    return rng.standard_normal((count, dim)).astype(np.float32)


def filled(folder: Path, rng: np.random.Generator) -> np.ndarray:
    """A closed store with 100 written, 50 replaced and 20 removed; returns the last vectors."""
    store = LocalStore(folder)
    store.create(Collection("c", 8, "l2", model="m", model_digest="sha256:1"))
    base = vectors(rng, 100)
    ids = [f"id-{i}" for i in range(100)]
    store.upsert("c", ids, vectors(rng, 100))
    store.upsert("c", ids[50:], base[50:], [b'{"i":%d}' % i for i in range(50, 100)])
    store.upsert("c", ids[:50], base[:50])
    store.delete("c", ids[:20])
    store.close()
    return base


def test_a_reopened_store_is_the_same(tmp_path: Path, rng: np.random.Generator) -> None:
    base = filled(tmp_path, rng)
    store = LocalStore(tmp_path)
    assert store.collections() == (Collection("c", 8, "l2", "auto", "m", "sha256:1", 80, 4),)
    rows = store.get("c", [f"id-{i}" for i in range(100)])
    assert [row is None for row in rows] == [i < 20 for i in range(100)]
    for i, row in enumerate(rows):
        if row is not None:
            assert row.vector is not None
            assert row.vector.tobytes() == base[i].tobytes()
            assert row.payload == (b'{"i":%d}' % i if i >= 50 else None)
    found = store.search("c", Query(base, k=1)).ids
    assert [i for (i,) in found[20:]] == [f"id-{i}" for i in range(20, 100)]
    assert store.upsert("c", ["new"], base[:1]).sequence == 5
    store.close()


def test_every_commit_waits_for_the_disk(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.create(Collection("c", 8))
    writer = store._open["c"]._truth._writer
    assert writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert writer.execute("PRAGMA synchronous").fetchone() == (2,), "2 is FULL"
    store.close()


def test_leftovers_of_a_killed_process_are_removed(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    filled(tmp_path, rng)
    for name in (".making-abc", ".dropped-abc"):
        (tmp_path / "collections" / name).mkdir()
        (tmp_path / "collections" / name / "truth.sqlite").write_bytes(b"half")
    (tmp_path / "collections" / "README").write_text("not a collection")
    store = LocalStore(tmp_path)
    assert [c.name for c in store.collections()] == ["c"]
    assert sorted(p.name for p in (tmp_path / "collections").iterdir()) == ["README", "c"]
    store.close()


def test_a_dropped_collection_leaves_no_file(tmp_path: Path, rng: np.random.Generator) -> None:
    filled(tmp_path, rng)
    store = LocalStore(tmp_path)
    store.drop("c")
    assert list((tmp_path / "collections").iterdir()) == []
    store.close()


@pytest.mark.parametrize("damage", ["header", "empty", "schema", "short vector"])
def test_a_damaged_collection_is_named_and_releases_the_directory(
    tmp_path: Path, rng: np.random.Generator, damage: str
) -> None:
    filled(tmp_path, rng)
    file = tmp_path / "collections" / "c" / "truth.sqlite"
    content = file.read_bytes()
    if damage == "header":
        file.write_bytes(b"\0" * 100 + content[100:])
    elif damage == "empty":
        file.write_bytes(b"")
    else:
        connection = sqlite3.connect(file)
        if damage == "schema":
            connection.execute("PRAGMA user_version = 99")
        else:
            connection.execute("UPDATE vectors SET data = x'00112233' WHERE slot = 120")
        connection.commit()
        connection.close()
    way_out = r"collections/c.*; restore \S+/collections/c from a copy, or move it away"
    with pytest.raises(StoreDamaged, match=way_out):
        LocalStore(tmp_path)
    file.write_bytes(content)
    for suffix in ("-wal", "-shm"):
        file.with_name(file.name + suffix).unlink(missing_ok=True)
    store = LocalStore(tmp_path)
    assert store.describe("c").count == 80
    store.close()


@pytest.mark.parametrize("damage", ["a folder", "a dangling link", "behind a loop of links"])
def test_a_truth_that_cannot_be_opened_stops_the_start(tmp_path: Path, damage: str) -> None:
    home = tmp_path / "collections" / "c"
    if damage == "a folder":
        (home / "truth.sqlite").mkdir(parents=True)
    elif damage == "a dangling link":
        home.mkdir(parents=True)
        (home / "truth.sqlite").symlink_to(tmp_path / "unmounted")
    else:
        home.parent.mkdir()
        home.symlink_to(home)
    with pytest.raises(StoreDamaged, match=f"restore {home} from a copy, or move it away"):
        LocalStore(tmp_path)
    home.rename(tmp_path / "away")
    LocalStore(tmp_path).close()


def test_a_folder_without_truth_is_no_collection_and_is_named(
    tmp_path: Path, rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    filled(tmp_path, rng)
    home = tmp_path / "collections"
    for name in ("bad name", "empty", "lost"):
        (home / name).mkdir()
    (home / "lost" / "index-1.snapshot").write_bytes(b"of a collection once")
    (home / "unmounted").symlink_to(tmp_path / "absent")
    (home / "file").write_text("")
    logger = logging.getLogger("embedkit")
    logger.addHandler(caplog.handler)
    try:
        store = LocalStore(tmp_path)
    finally:
        logger.removeHandler(caplog.handler)
    warned = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    for name in ("bad name", "empty", "lost", "unmounted"):
        assert any(f"{home / name} is not served" in line for line in warned), name
    assert all("a collection that has lost that file" in line for line in warned)
    assert [c.name for c in store.collections()] == ["c"]
    for name in ("empty", "lost", "unmounted", "file"):
        with pytest.raises(AlreadyExists, match=f"collections/{name}, which is not served"):
            store.create(Collection(name, 8))
    (home / "empty").rmdir()
    assert store.create(Collection("empty", 8)).name == "empty"
    store.close()


def test_a_lost_truth_that_is_put_back_is_served(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    filled(tmp_path, rng)
    file = tmp_path / "collections" / "c" / "truth.sqlite"
    file.rename(tmp_path / "elsewhere")
    store = LocalStore(tmp_path)
    assert store.collections() == ()
    store.close()
    (tmp_path / "elsewhere").rename(file)
    store = LocalStore(tmp_path)
    assert store.describe("c").count == 80
    store.close()


def test_collections_that_are_no_folder_are_told(tmp_path: Path) -> None:
    (tmp_path / "collections").write_text("")
    with pytest.raises(InvalidInput, match=r"got \S+/collections \(File exists\); choose"):
        LocalStore(tmp_path)
    (tmp_path / "collections").unlink()
    LocalStore(tmp_path).close()


def test_a_second_store_on_the_directory_is_refused(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    with pytest.raises(Unavailable, match=str(os.getpid())):
        LocalStore(tmp_path)
    store.close()
    LocalStore(tmp_path).close()


def test_limits_are_those_given(tmp_path: Path, rng: np.random.Generator) -> None:
    limits = Limits(rows=3, collections=1, dim=8, k=5, hits=6)
    store = LocalStore(tmp_path, limits=limits)
    store.create(Collection("c", 8))
    with pytest.raises(InvalidInput, match="at most 1 collections"):
        store.create(Collection("d", 8))
    ids = ["a", "b", "c", "d"]
    with pytest.raises(MessageTooLarge, match="at most 3 ids"):
        store.upsert("c", ids, vectors(rng, 4))
    with pytest.raises(MessageTooLarge, match="at most 3 ids"):
        store.get("c", ids)
    with pytest.raises(MessageTooLarge, match="at most 3 ids"):
        store.delete("c", ids)
    with pytest.raises(MessageTooLarge, match="at most 6 hits"):
        store.search("c", Query(vectors(rng, 2), k=4))
    with pytest.raises(MessageTooLarge, match="at most 3 queries in one request, got 4"):
        store.search("c", Query(vectors(rng, 4), k=1))
    assert store.upsert("c", ids[:3], vectors(rng, 3)).count == 3
    store.close()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("ImportError", "libcublas.so.12: cannot open shared object file"),
        ("RuntimeError", "faiss-gpu installed but nvidia-curand-cu12 is missing"),
    ],
)
def test_a_gpu_library_that_is_missing_is_named(tmp_path: Path, kind: str, said: str) -> None:
    """As the loader says it of a FAISS whose CUDA libraries are not installed, and 1.15.1."""
    (tmp_path / "faiss.py").write_text(f"raise {kind}({said!r})")
    program = (
        "from embedkit.errors import MissingDependency\n"
        "from embedkit.retrieve.store import stores\n"
        "try:\n    stores.get('local')\nexcept MissingDependency as error:\n    print(error)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert said in result.stdout, result.stderr
    assert "embedkit[gpu]" in result.stdout


LIVE = """
import sys
import numpy as np
from embedkit.retrieve.stores.local import LocalStore
from embedkit.types import Collection

store = LocalStore(sys.argv[1])
print("open", flush=True)
step = 0
while True:
    name = f"c{step % 5}"
    store.create(Collection(name, 4))
    store.upsert(name, ["a"], np.ones((1, 4), np.float32))
    print(step, flush=True)
    if step % 5 == 4:
        for i in range(5):
            store.drop(f"c{i}")
        print("dropped", flush=True)
    step += 1
"""


def test_kills_while_making_and_dropping_collections(tmp_path: Path) -> None:
    """A collection exists with what was acknowledged, or not at all."""
    moments = random.Random(5)
    for _ in range(4):
        command = [sys.executable, "-c", LIVE, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            time.sleep(moments.uniform(0, 0.15))
            process.send_signal(signal.SIGKILL)
            said = process.stdout.read().split("\n")
            process.wait()
        store = LocalStore(tmp_path)
        present = {c.name: c.count for c in store.collections()}
        done = [line for line in said[:-1] if line]
        since = done[len(done) - done[::-1].index("dropped") :] if "dropped" in done else done
        if len(since) < 5:  # with five, dropping them had begun
            assert {f"c{int(step) % 5}" for step in since} <= {n for n in present if present[n]}
        for name in present:
            store.drop(name)
        store.close()


@pytest.mark.slow
def test_bulk_writes_and_reopening_are_fast(tmp_path: Path, rng: np.random.Generator) -> None:
    """20,000 durable vectors of 128 dimensions a second; open again in under 2 s at 100,000."""
    base = vectors(rng, 100_000, 128)
    ids = [f"photo-{i}" for i in range(100_000)]
    payloads = [b'{"label":"cat","i":%d}' % i for i in range(100_000)]
    store = LocalStore(tmp_path)
    store.create(Collection("c", 128))
    start = time.perf_counter()
    for i in range(0, 100_000, 4096):
        part = slice(i, i + 4096)
        store.upsert("c", ids[part], base[part], payloads[part])
    rate = 100_000 / (time.perf_counter() - start)
    store.close()
    start = time.perf_counter()
    store = LocalStore(tmp_path)
    seconds = time.perf_counter() - start
    assert store.search("c", Query(base[-1:], k=1)).ids[0][0] == ids[-1]
    store.close()
    assert rate > 20_000
    assert seconds < 2.0


@pytest.mark.parametrize(
    "payload",
    [b'{"a": 1e999}', b'{"a": [-1e400]}', b'{"a": "\\ud800"}', b'{"\\udfff": 1}'],
)
def test_payloads_that_readers_cannot_hold_are_refused(tmp_path: Path, payload: bytes) -> None:
    store = LocalStore(tmp_path)
    store.create(Collection("c", 2))
    row = np.ones((1, 2), np.float32)
    with pytest.raises(InvalidInput, match="JSON object as payload 0"):
        store.upsert("c", ["a"], row, [payload])
    store.upsert("c", ["a"], row, [b'{"a": "\\ud83d\\ude00", "b": 1e308}'])
    with pytest.raises(InvalidInput, match="whole characters"):
        store.upsert("c", ["\ud800"], row)
    store.close()


def test_a_digest_that_is_too_long_is_not_kept(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.create(Collection("c", 2))
    row = np.ones((1, 2), np.float32)
    with pytest.raises(InvalidInput, match="at most 256 characters, got 257"):
        store.upsert("c", ["a"], row, model_digest="x" * 257)
    assert store.upsert("c", ["a"], row, model_digest="x" * 256).model_digest == "x" * 256
    store.close()


def test_a_search_does_not_go_on_in_the_next_collection_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropped and made again between the index's answer and the reading of its hits."""
    store = LocalStore(tmp_path)

    def fill(tag: str) -> None:
        store.create(Collection("c", 4, "l2"))
        payloads = [b'{"of":"%s"}' % tag.encode()] * 9
        store.upsert("c", [f"{tag}{i}" for i in range(9)], np.eye(9, 4, dtype="f4"), payloads)

    fill("old")
    search = LayeredIndex.search

    def overtaken(*arguments):
        found = search(*arguments)
        monkeypatch.setattr(LayeredIndex, "search", search)
        store.drop("c")
        fill("new")
        return found

    monkeypatch.setattr(LayeredIndex, "search", overtaken)
    query = Query(np.ones((1, 4), np.float32), 3, with_vectors=True)
    with pytest.raises(NotFound, match="'c', dropped"):
        store.search("c", query)
    hits = store.search("c", query).hits[0]
    assert {i[:3] for i in hits.ids} == {"new"}
    assert set(hits.payloads or ()) == {b'{"of":"new"}'}
    store.close()


def test_a_collection_is_served_under_its_own_name_alone(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    filled(tmp_path, rng)
    home = tmp_path / "collections" / "c"
    shutil.copytree(home, home.with_name("restored"))
    with pytest.raises(StoreDamaged, match=r"'restored' in .*, got 'c'.*rename the folder"):
        LocalStore(tmp_path)
    shutil.rmtree(home)
    home.with_name("restored").rename(home)
    store = LocalStore(tmp_path)
    assert [c.name for c in store.collections()] == ["c"]
    store.close()
