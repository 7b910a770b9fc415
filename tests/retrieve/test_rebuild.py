"""Approximate kinds in a living collection: builds beside reads and writes, and restarts."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embedkit.errors import InvalidInput
from embedkit.retrieve.index import rebuild
from embedkit.retrieve.index import segment as segment_module
from embedkit.retrieve.store import Answer, Query
from embedkit.retrieve.stores.local import LocalStore
from embedkit.types import Collection, IndexState, SearchParams

DIM = 8
KINDS = ("ivf_flat", "hnsw", "sq8", "pq")
EXACT = SearchParams(exact=True)


@pytest.fixture(autouse=True)
def _small_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    """An index is built from 200 vectors on, without waiting for a pause in the writes."""
    monkeypatch.setattr(rebuild, "LEAST", 200)
    monkeypatch.setattr(rebuild, "_REST_S", 0.01)
    monkeypatch.setattr(segment_module, "_FEW", 20)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    opened = LocalStore(tmp_path / "data")
    yield opened
    opened.close()


def vectors(rng: np.random.Generator, count: int) -> np.ndarray:
    centres = np.random.default_rng(0).standard_normal((20, DIM))
    noise = 0.4 * rng.standard_normal((count, DIM))
    return (centres[rng.integers(0, 20, count)] + noise).astype(np.float32)


def names(count: int) -> list[str]:
    return [f"id-{i}" for i in range(count)]


def stands(store: LocalStore, name: str) -> IndexState:
    state = store.inspect(name).index
    assert state is not None
    return state


def found(answer: Answer) -> list[list[str]]:
    return answer.ids


@pytest.mark.parametrize("kind", KINDS)
def test_built_searched_changed_and_opened_again(
    store: LocalStore, rng: np.random.Generator, kind: str, tmp_path: Path
) -> None:
    """The answers with ``exact`` are the same before, during and after, and from the disk."""
    base, queries = vectors(rng, 1200), vectors(rng, 20)
    for name, of_kind in (("c", kind), ("reference", "flat")):
        store.create(Collection(name, DIM, "l2", of_kind))
        store.upsert(name, names(1200), base)
    assert store.wait_until_built("c", 60)
    stats = stands(store, "c")
    assert (stats.kind, stats.indexed, stats.tail, stats.error) == (kind, 1200, 0, "")

    def check() -> None:
        expected = store.search("reference", Query(queries, k=10))
        exact = store.search("c", Query(queries, k=10, params=EXACT))
        assert exact.exact
        assert found(exact) == found(expected)
        assert np.array_equal(exact.scores, expected.scores)
        near = store.search("c", Query(queries, k=10, params=SearchParams(recall_target=0.9)))
        pairs = zip(found(near), found(expected), strict=True)
        assert sum(len({*a} & {*b}) for a, b in pairs) >= 0.85 * 200
        assert store.verify("c").problems == ()

    check()
    for name in ("c", "reference"):
        store.upsert(name, names(150), base[100:250])
        store.delete(name, names(1200)[300:400])
    check()
    store.wait_until_built("c", 60)
    check()
    sequence = store.describe("c").sequence
    store.close()
    store.__init__(tmp_path / "data")  # type: ignore[misc]  # the fixture closes this one
    assert stands(store, "c").kind == kind, "from the snapshot, without a build"
    assert stands(store, "c").builds == 0
    assert store.verify("c").sequence == sequence
    check()


@pytest.mark.parametrize("storage", ["float16", "int8"])
def test_storage_rounds_once_and_for_all(
    store: LocalStore, rng: np.random.Generator, storage: str, tmp_path: Path
) -> None:
    """What is found is compared as it is stored, before and after a restart."""
    base = vectors(rng, 300)
    for kind in ("flat", "ivf_flat"):
        store.create(Collection(kind, DIM, "cosine", kind, storage=storage))
        store.upsert(kind, names(300), base)
        store.wait_until_built(kind, 60)
    before = [
        store.search(kind, Query(base, k=5, params=EXACT)) for kind in ("flat", "ivf_flat")
    ]
    rows = store.get("flat", names(300))
    stored = np.array([row.vector for row in rows if row is not None])
    assert 0 < np.abs(stored - base).max() < 0.02
    unit = stored.astype(np.float64) / np.linalg.norm(stored, axis=1, keepdims=True)
    asked = base.astype(np.float64) / np.linalg.norm(base, axis=1, keepdims=True)
    expected = np.sort(asked @ unit.T, axis=1)[:, :-6:-1]
    for answer in before:
        np.testing.assert_allclose(np.array(answer.scores), expected, rtol=1e-6)
    store.close()
    store.__init__(tmp_path / "data")  # type: ignore[misc]
    for kind, answer in zip(("flat", "ivf_flat"), before, strict=True):
        again = store.search(kind, Query(base, k=5, params=EXACT))
        assert found(again) == found(answer)
        assert np.array_equal(again.scores, answer.scores)
        assert store.verify(kind).problems == ()
    with pytest.raises(InvalidInput, match="did you mean 'float16'"):
        store.create(Collection("x", DIM, storage="float61"))


def test_vectors_that_a_storage_cannot_hold_are_refused(store: LocalStore) -> None:
    store.create(Collection("c", 2, "cosine", storage="float16"))
    for row, said in (([1e6, 1], "infinity in row 1"), ([1e-9, 0], "zeros in row 1")):
        with pytest.raises(InvalidInput, match=said):
            store.upsert("c", ["a", "b"], np.array([[1, 0], row], np.float32))
    assert store.describe("c").count == 0


def flipped(content: bytes) -> bytes:
    """The same bytes but for one bit."""
    return content[:-100] + bytes([content[-100] ^ 1]) + content[-99:]


@pytest.mark.parametrize("damage", ["bit", "missing", "short", "other"])
@pytest.mark.parametrize("file", ["snapshot", "rows"])
def test_a_snapshot_that_does_not_fit_is_built_anew(
    store: LocalStore, rng: np.random.Generator, tmp_path: Path, damage: str, file: str
) -> None:
    base = vectors(rng, 400)
    for name in ("c", "other"):
        store.create(Collection(name, DIM, "l2", "sq8"))
        store.upsert(name, names(400), base if name == "c" else -base)
        store.wait_until_built(name, 60)
    before = store.search("c", Query(base[:9], k=5, params=EXACT))
    store.close()
    (path,) = (tmp_path / "data/collections/c").glob(f"index-*.{file}")
    content = path.read_bytes()
    if damage == "bit":
        path.write_bytes(flipped(content))
    elif damage == "missing":
        path.unlink()
    elif damage == "short":
        path.write_bytes(content[: len(content) // 2])
    else:  # a whole snapshot, of a collection that has the same slots
        (other,) = (tmp_path / "data/collections/other").glob(f"index-*.{file}")
        path.write_bytes(other.read_bytes())
    store.__init__(tmp_path / "data")  # type: ignore[misc]
    after = store.search("c", Query(base[:9], k=5, params=EXACT))
    assert found(after) == found(before)
    store.wait_until_built("c", 60)
    assert stands(store, "c").builds == 1
    assert store.verify("c").problems == ()
    files = sorted((tmp_path / "data/collections/c").glob("*index-*"))
    assert [path.suffix for path in files] == [".rows", ".snapshot"]


def test_a_snapshot_of_another_time_of_the_collection_is_not_read(
    store: LocalStore, rng: np.random.Generator, tmp_path: Path
) -> None:
    """A copy of the truth put back: the newer snapshot claims more, and is not believed."""
    base = vectors(rng, 400)
    store.create(Collection("c", DIM, "l2", "ivf_flat"))
    store.upsert("c", names(400), base)
    store.wait_until_built("c", 60)
    store.close()
    truth = tmp_path / "data/collections/c/truth.sqlite"
    old = truth.read_bytes()
    store.__init__(tmp_path / "data")  # type: ignore[misc]
    store.upsert("c", names(400), -base)
    store.wait_until_built("c", 60)
    store.close()
    truth.write_bytes(old)
    store.__init__(tmp_path / "data")  # type: ignore[misc]
    assert found(store.search("c", Query(base[:9], k=1))) == [[i] for i in names(9)]
    store.wait_until_built("c", 60)
    assert store.verify("c").problems == ()


def test_a_cache_that_was_deleted_is_no_problem(
    store: LocalStore, rng: np.random.Generator, tmp_path: Path
) -> None:
    """Not even where too few vectors are left for another."""
    store.create(Collection("c", DIM, "l2", "ivf_flat"))
    store.upsert("c", names(250), vectors(rng, 250))
    store.wait_until_built("c", 60)
    store.delete("c", names(100))
    store.close()
    for path in (tmp_path / "data/collections/c").glob("index-*"):
        path.unlink()
    store.__init__(tmp_path / "data")  # type: ignore[misc]
    assert store.wait_until_built("c", 60)
    assert stands(store, "c").kind == "flat"
    assert store.verify("c").problems == ()


def test_verification_finds_what_differs(store: LocalStore, rng: np.random.Generator) -> None:
    base = vectors(rng, 600)
    store.create(Collection("c", DIM, "l2", "sq8"))
    store.upsert("c", names(500), base[:500])
    store.wait_until_built("c", 60)
    store.upsert("c", names(600)[500:], base[500:])
    opened = store._open["c"]
    assert opened.inspected().index.tail == 100
    assert store.verify("c").vectors == 600
    writer = opened._truth._writer
    for slot in (7, 550):
        row = writer.execute("SELECT data FROM vectors WHERE slot = ?", (slot,)).fetchone()
        changed = (np.frombuffer(row[0], "<f4") + np.float32(0.5)).tobytes()
        writer.execute("UPDATE vectors SET data = ? WHERE slot = ?", (changed, slot))
    assert store.verify("c").problems == ("2 vectors differ between truth and index",)
    writer.execute("DELETE FROM vectors WHERE slot = 9")
    problems = store.verify("c").problems
    assert any("the index has 600 vectors, the truth 599" in text for text in problems)
    assert any("1 of items have no vectors" in text for text in problems)
    (path,) = opened.folder.glob("index-*.snapshot")
    path.write_bytes(path.read_bytes()[:-1])
    assert any("digest" in text for text in store.verify("c").problems)


def test_compaction_takes_the_removed_out_of_the_index(
    store: LocalStore, rng: np.random.Generator
) -> None:
    store.create(Collection("c", DIM, "l2", "ivf_flat"))
    store.upsert("c", names(900), vectors(rng, 900))
    store.wait_until_built("c", 60)
    store.delete("c", names(100))
    assert store.wait_until_built("c", 60)
    assert stands(store, "c").removed == 100, "too few for a build of their own"
    store.compact("c")
    assert store.wait_until_built("c", 60)
    stats = stands(store, "c")
    assert (stats.indexed, stats.removed) == (800, 0)


State = dict[str, np.ndarray]


def best(state: State, query: np.ndarray, k: int) -> list[tuple[str, float]]:
    ids = list(state)
    base = np.array([state[i] for i in ids], np.float64)
    scores = -((base - query.astype(np.float64)) ** 2).sum(axis=1)
    return [(ids[i], scores[i]) for i in np.argsort(-scores)[:k]]


def written_over(
    store: LocalStore, rng: np.random.Generator, history: dict[int, State]
) -> None:
    """Write until there were some builds; each state goes into the history."""
    (state,) = history.values()
    least, most = time.monotonic() + 1.0, time.monotonic() + 30
    while time.monotonic() < least or stands(store, "c").builds < 2:
        assert time.monotonic() < most
        ids = [f"id-{i}" for i in rng.choice(600, size=int(rng.integers(1, 60)), replace=False)]
        if rng.random() < 0.4 and len(state) > 200:
            _, after = store.delete("c", ids)
            state = {i: v for i, v in state.items() if i not in ids}
        else:
            new = vectors(rng, len(ids))
            after = store.upsert("c", ids, new)
            state = state | dict(zip(ids, new, strict=True))
        history[after.sequence] = state


@pytest.mark.parametrize("kind", ["ivf_flat", "sq8"])
def test_every_answer_is_a_state_that_existed_through_builds_and_swaps(
    store: LocalStore, rng: np.random.Generator, kind: str
) -> None:
    """Exact answers are the state's best; others are hits of the state, scored right."""
    store.create(Collection("c", DIM, "l2", kind))
    state: State = dict(zip(names(400), vectors(rng, 400), strict=True))
    after = store.upsert("c", list(state), np.array(list(state.values())))
    history = {after.sequence: state}
    answers: list[tuple[np.ndarray, Answer]] = []
    failures: list[BaseException] = []
    stop = threading.Event()

    def search(seed: int) -> None:
        mine = np.random.default_rng(seed)
        params = EXACT if seed % 2 else SearchParams(recall_target=0.8)
        try:
            while not stop.is_set():
                query = vectors(mine, 1)
                answers.append((query[0], store.search("c", Query(query, k=6, params=params))))
        except BaseException as error:
            failures.append(error)

    searchers = [threading.Thread(target=search, args=(seed,)) for seed in range(4)]
    for thread in searchers:
        thread.start()
    written_over(store, rng, history)
    stop.set()
    for thread in searchers:
        thread.join()
    assert not failures
    assert len({answer.collection.sequence for _, answer in answers}) > 20
    for query, answer in answers[:: max(1, len(answers) // 1500)]:
        then = history[answer.collection.sequence]
        (ids,), (scores,) = answer.ids, answer.scores
        expected = best(then, query, 6)
        if answer.exact:
            assert ids == [i for i, _ in expected]
        assert len(set(ids)) == 6
        true = [-float(((then[i] - query).astype(np.float64) ** 2).sum()) for i in ids]
        np.testing.assert_allclose(scores, true, rtol=1e-5)
        assert (np.diff(scores) <= 0).all()


def test_parameters_are_checked_against_the_kind(
    store: LocalStore, rng: np.random.Generator
) -> None:
    store.create(Collection("c", DIM, "l2", "hnsw"))
    with pytest.raises(InvalidInput, match=r"no nprobe .* hnsw"):
        store.search("c", Query(vectors(rng, 1), k=1, params=SearchParams(nprobe=3)))
    with pytest.raises(InvalidInput, match="did you mean 'hnsw'"):
        store.create(Collection("d", DIM, "l2", "hnws"))


def test_verification_names_a_file_of_vectors_that_is_damaged(
    store: LocalStore, rng: np.random.Generator, tmp_path: Path
) -> None:
    base = vectors(rng, 400)
    store.create(Collection("c", DIM, "l2", "sq8"))
    store.upsert("c", names(400), base)
    store.wait_until_built("c", 60)
    store.close()
    (path,) = (tmp_path / "data/collections/c").glob("index-*.rows")
    path.write_bytes(flipped(path.read_bytes()))
    store.__init__(tmp_path / "data")  # type: ignore[misc]
    assert "file of whole vectors is damaged" in store.verify("c").problems[0]
    store.wait_until_built("c", 60)
    assert stands(store, "c").builds == 1
    assert store.verify("c").problems == ()
