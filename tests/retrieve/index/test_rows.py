"""The file of whole vectors beside codes: what it gives back, and what damage does."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from embedkit.retrieve.index.build import build_segment
from embedkit.retrieve.index.engines import rows as module
from embedkit.retrieve.index.engines.rows import Rows, RowsDamagedError, RowWriter
from embedkit.retrieve.index.engines.spec import Spec
from embedkit.retrieve.index.selection import Selection
from embedkit.retrieve.index.snapshots.snapshot import (
    SnapshotError,
    check_snapshot,
    clear,
    read_snapshot,
    write_snapshot,
)
from embedkit.types import SearchParams

DIM = 6


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK_BYTES", 5 * 4 * DIM)
    monkeypatch.setattr(module, "_BLOCKS_AT_ONCE", 3)


def written(folder: Path, vectors: np.ndarray, step: int = 7) -> Rows:
    writer = RowWriter(folder, DIM)
    for start in range(0, len(vectors), step):
        writer.add(vectors[start : start + step])
    return writer.rows()


def again(rows: Rows, count: int) -> Rows:
    return Rows(rows.path, (count, DIM), rows.sums)


@pytest.mark.parametrize("count", [1, 5, 14, 15, 62])
def test_rows_come_back_bit_for_bit(
    tmp_path: Path, rng: np.random.Generator, count: int
) -> None:
    vectors = rng.standard_normal((count, DIM)).astype(np.float32)
    first = written(tmp_path, vectors)
    for rows in (first, again(first, count)):
        positions = rng.integers(0, count, (4, 3))
        assert np.array_equal(rows.read(positions), vectors[positions])
        parts = list(rows.stream())
        assert [start for start, _ in parts] == list(range(0, count, 15))
        assert np.array_equal(np.concatenate([part for _, part in parts]), vectors)
        assert rows.check() == ""


def test_a_changed_bit_is_found_before_a_row_is_used(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    vectors = rng.standard_normal((62, DIM)).astype(np.float32)
    rows = written(tmp_path, vectors)
    content = bytearray(rows.path.read_bytes())
    content[4 * DIM * 33 + 2] ^= 4
    rows.path.write_bytes(content)
    opened = again(rows, 62)
    assert np.array_equal(opened.read(np.arange(30)), vectors[:30])
    assert "[6]" in opened.check()
    assert not opened.is_damaged
    with pytest.raises(RowsDamagedError, match="block 6"):
        opened.read(np.array([1, 31]))
    assert opened.is_damaged
    assert not opened.path.exists()
    with pytest.raises(RowsDamagedError):
        opened.read(np.array([1]))


@pytest.mark.parametrize("more", [-3, 3])
def test_another_size_is_refused(tmp_path: Path, rng: np.random.Generator, more: int) -> None:
    rows = written(tmp_path, rng.standard_normal((62, DIM)).astype(np.float32))
    os.truncate(rows.path, 4 * DIM * 62 + more)
    with pytest.raises(RowsDamagedError, match="62 x 6"):
        again(rows, 62)
    if more < 0:  # while it is open, its blocks checked already
        with pytest.raises(RowsDamagedError, match="shorter"):
            rows.read(np.array([61]))


def put(kind: str, path: Path) -> None:
    """Something that is no file of ours, under its name."""
    path.unlink()
    if kind == "folder":
        (path / "inner").mkdir(parents=True)
        (path / "inner" / "file").touch()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        (path.parent / "elsewhere").write_bytes(b"others' data")
        path.symlink_to("elsewhere")
    elif kind == "loop":
        path.symlink_to(path.name)


@pytest.mark.parametrize("suffix", [".rows", ".snapshot"])
@pytest.mark.parametrize("kind", ["folder", "fifo", "link", "loop"])
def test_what_is_no_file_is_a_damaged_cache(
    tmp_path: Path, rng: np.random.Generator, kind: str, suffix: str
) -> None:
    """It is refused at once, removed, and the place is free for the next snapshot."""
    held = Held(rng.standard_normal((500, DIM)).astype(np.float32))
    spec = Spec("sq8", "float32", "l2", DIM)
    segment = build_segment(spec, held, 500, lambda: None, tmp_path)
    digest = write_snapshot(tmp_path, segment, 5)
    (path,) = tmp_path.glob(f"*{suffix}")
    put(kind, path)
    with pytest.raises(SnapshotError, match=str(path)):
        read_snapshot(tmp_path, digest)
    assert str(path) in check_snapshot(tmp_path, digest)
    clear(tmp_path, keep="")
    assert not os.path.lexists(path)
    if kind == "link":
        assert (tmp_path / "elsewhere").read_bytes() == b"others' data"
    assert write_snapshot(tmp_path, build_segment(spec, held, 500, lambda: None, tmp_path), 5)
    read_snapshot(tmp_path, digest)


def test_a_damaged_file_under_a_folder_that_may_not_change(rng: np.random.Generator) -> None:
    """It stays with a warning; nothing is read from it, and nothing fails."""
    folder = Path(tempfile.mkdtemp())
    try:
        vectors = rng.standard_normal((62, DIM)).astype(np.float32)
        rows = written(folder, vectors)
        rows.path.write_bytes(bytes(4 * DIM * 62))
        kept = rows.path.rename(folder / "index-0.rows")
        kept.chmod(0o644)
        folder.chmod(0o555)
        with as_somebody():
            opened = Rows(kept, (62, DIM), rows.sums)
            with pytest.raises(RowsDamagedError, match="block 0"):
                opened.read(np.array([1]))
            assert opened.is_damaged
            clear(folder, keep="")
        assert kept.exists()
        kept.chmod(0)
        with as_somebody(), pytest.raises(PermissionError):
            Rows(kept, (62, DIM), rows.sums)
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


@contextmanager
def as_somebody() -> Iterator[None]:
    """Without root's right to everything, where the tests run as root."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


class Held:
    """A source that counts how often it is asked."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors, self.asked = vectors, 0

    def slots(self) -> np.ndarray:
        return np.arange(1, len(self.vectors) + 1)

    def stream(self, after: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        self.asked += 1
        yield self.slots()[after:], self.vectors[after:]

    def fetch(self, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.asked += 1
        return slots, self.vectors[slots - 1]


@pytest.mark.parametrize("exact", [False, True])
def test_a_search_goes_on_from_the_truth(
    tmp_path: Path, rng: np.random.Generator, exact: bool
) -> None:
    """The same hits and scores, whether the file is whole or damaged."""
    held = Held(rng.standard_normal((6000, DIM)).astype(np.float32))
    spec = Spec("sq8", "float32", "l2", DIM)
    segment = build_segment(spec, held, 6000, lambda: None, tmp_path)
    digest = write_snapshot(tmp_path, segment, 5)
    queries, params = held.vectors[:9] + 0.1, SearchParams(exact=exact, recall_target=0.9)
    everything = Selection.everything(6000)
    held.asked = 0
    expected = segment.search(queries, 4, everything, params, held)
    assert held.asked == 0
    assert segment.rows is not None
    path = segment.rows.path
    assert check_snapshot(tmp_path, digest) == ""
    content = bytearray(path.read_bytes())
    content[1000::1000] = bytes(len(content[1000::1000]))
    path.write_bytes(content)
    assert "other blocks" in check_snapshot(tmp_path, digest)
    opened = read_snapshot(tmp_path, digest).segment
    found = opened.search(queries, 4, everything, params, held)
    assert opened.rows is not None
    assert opened.rows.is_damaged
    assert held.asked
    assert np.array_equal(found.slots, expected.slots)
    assert np.array_equal(found.scores, expected.scores)
    with pytest.raises(SnapshotError, match="No such file"):
        read_snapshot(tmp_path, digest)


def test_files_of_other_snapshots_are_removed(tmp_path: Path, rng: np.random.Generator) -> None:
    held = Held(rng.standard_normal((500, DIM)).astype(np.float32))
    digests = []
    for seed in (5, 6):
        spec = Spec("sq8", "float32", "l2", DIM)
        segment = build_segment(spec, held, 500, lambda: None, tmp_path)
        digests.append(write_snapshot(tmp_path, segment, seed))
    left = RowWriter(tmp_path, DIM)  # of a build that ended
    clear(tmp_path, keep=digests[1])
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"index-{digests[1][:16]}.{end}" for end in ("rows", "snapshot")]
    left.discard()
    clear(tmp_path, keep="")
    assert not list(tmp_path.iterdir())


def test_a_build_that_ends_leaves_no_file(tmp_path: Path, rng: np.random.Generator) -> None:
    held = Held(rng.standard_normal((500, DIM)).astype(np.float32))
    calls: list[int] = []

    def check() -> None:
        calls.append(len(list(tmp_path.iterdir())))
        if len(calls) == 13:
            raise RuntimeError("told to end")

    with pytest.raises(RuntimeError, match="told to end"):
        build_segment(Spec("sq8", "float32", "l2", DIM), held, 500, check, tmp_path)
    assert calls[-1] == 1
    assert not list(tmp_path.iterdir())
