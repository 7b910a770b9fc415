"""When an index is built: after a failure, and beside writes that never pause."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embedkit.retrieve.index import rebuild
from embedkit.retrieve.store import Query
from embedkit.retrieve.stores.local import LocalStore
from embedkit.types import Collection, IndexState

DIM = 8


@pytest.fixture(autouse=True)
def _small_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    """An index is built from 200 vectors on, without waiting for a pause in the writes."""
    monkeypatch.setattr(rebuild, "LEAST", 200)
    monkeypatch.setattr(rebuild, "_REST_S", 0.01)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    opened = LocalStore(tmp_path / "data")
    yield opened
    opened.close()


def vectors(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.standard_normal((count, DIM)).astype(np.float32)


def names(count: int) -> list[str]:
    return [f"id-{i}" for i in range(count)]


def stands(store: LocalStore, name: str) -> IndexState:
    state = store.inspect(name).index
    assert state is not None
    return state


def test_a_failed_build_changes_nothing_and_is_told(
    store: LocalStore, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("no room")

    base = vectors(rng, 300)
    store.create(Collection("c", DIM, "l2", "hnsw"))
    with monkeypatch.context() as patch:
        patch.setattr(rebuild, "build_segment", fail)
        store.upsert("c", names(300), base)
        assert store.wait_until_built("c", 60)
    assert stands(store, "c").error == "MemoryError: no room"
    assert store.search("c", Query(base[:5], k=1)).ids == [[i] for i in names(5)]
    store._open["c"]._rebuilder._retry_at = 0.0
    store.upsert("c", ["one more"], base[:1])
    assert store.wait_until_built("c", 60)
    assert stands(store, "c").error == ""
    assert stands(store, "c").kind == "hnsw"


def test_a_failed_build_is_tried_again_without_a_write(
    store: LocalStore, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(rebuild, "_RETRY_S", 0.05)
    store.create(Collection("c", DIM, "l2", "ivf_flat"))
    with monkeypatch.context() as patch:
        patch.setattr(rebuild, "build_segment", fail)
        store.upsert("c", names(300), vectors(rng, 300))
        assert store.wait_until_built("c", 60)
        assert stands(store, "c").error
    most = time.monotonic() + 60
    while stands(store, "c").kind != "ivf_flat":
        assert time.monotonic() < most
        time.sleep(0.01)
    assert store.wait_until_built("c", 60)
    assert stands(store, "c").error == ""


def test_a_trickle_of_writes_holds_no_build_up_for_ever(
    store: LocalStore, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither that of its own collection nor those of others."""
    monkeypatch.setattr(rebuild, "_REST_S", 3600.0)
    for name in ("written", "other"):
        store.create(Collection(name, DIM, "l2", "ivf_flat"))
    store.upsert("written", names(300), vectors(rng, 300))
    assert not store.wait_until_built("written", 0.5), "it waits for a pause"
    monkeypatch.setattr(rebuild, "_LONGEST_REST_S", 0.05)
    store.upsert("other", names(300), vectors(rng, 300))
    assert store.wait_until_built("other", 60)
    assert stands(store, "other").kind == "ivf_flat"
