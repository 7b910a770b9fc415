"""Concurrency: answers are states that existed, and one disk write serves many requests."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embedkit.errors import ModelMismatch, NotFound
from embedkit.retrieve.collection import OpenCollection
from embedkit.retrieve.store import Answer, Query
from embedkit.retrieve.truth.truth import create
from embedkit.retrieve.write import Write
from embedkit.types import Collection, Metric

DIM = 4


@pytest.fixture(params=["cosine", "l2"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenCollection]:
    create(tmp_path, Collection("c", DIM, request.param))
    collection = OpenCollection(tmp_path)
    yield collection
    collection.close()


def vectors(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.standard_normal((count, DIM)).astype(np.float32)


State = dict[str, tuple[np.ndarray, bytes]]


def expected_hits(
    state: State, query: np.ndarray, k: int, metric: Metric
) -> list[tuple[str, bytes, float]]:
    found = []
    for i, (vector, payload) in state.items():
        a, b = query.astype(np.float64), vector.astype(np.float64)
        score = -float(((a - b) ** 2).sum())
        if metric == "cosine":
            score = float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        found.append((i, payload, score))
    return sorted(found, key=lambda hit: -hit[2])[:k]


def test_every_answer_is_one_state_that_existed(
    opened: OpenCollection, rng: np.random.Generator
) -> None:
    """Three searchers beside a writer; each answer is checked against its sequence's state."""
    history: dict[int, State] = {0: {}}
    answers: list[tuple[np.ndarray, Answer]] = []
    failures: list[BaseException] = []
    stop = threading.Event()

    def search(seed: int) -> None:
        mine = np.random.default_rng(seed)
        try:
            while not stop.is_set():
                query = vectors(mine, 1)
                answers.append((query[0], opened.search(Query(query, k=7))))
        except BaseException as error:
            failures.append(error)

    searchers = [threading.Thread(target=search, args=(seed,)) for seed in range(3)]
    for thread in searchers:
        thread.start()
    state: State = {}
    end = time.monotonic() + 2.0
    while time.monotonic() < end:
        ids = [f"id-{i}" for i in rng.choice(30, size=rng.integers(1, 12), replace=False)]
        if rng.random() < 0.3:
            _, after = opened.write(Write(ids))
            state = {i: row for i, row in state.items() if i not in ids}
        else:
            new = vectors(rng, len(ids))
            payloads = [f'{{"step":{len(history)},"id":"{i}"}}' for i in ids]
            _, after = opened.write(Write(ids, new, payloads))
            rows = zip(ids, new, payloads, strict=True)
            state = state | {i: (v, p.encode()) for i, v, p in rows}
        history[after.sequence] = state
    stop.set()
    for thread in searchers:
        thread.join()
    assert not failures
    assert len(history) > 50
    assert len({answer.collection.sequence for _, answer in answers}) > 20
    metric = opened.described.metric
    for query, answer in answers:
        expected = expected_hits(history[answer.collection.sequence], query, 7, metric)
        (hits,) = answer.hits
        stored = hits.payloads or [None] * len(hits)
        assert list(zip(hits.ids, stored, strict=True)) == [e[:2] for e in expected]
        np.testing.assert_allclose(
            answer.scores[0], [e[2] for e in expected], rtol=1e-5, atol=1e-6
        )


def test_compaction_disturbs_neither_readers_nor_writers(
    opened: OpenCollection, rng: np.random.Generator
) -> None:
    """Ids 0 to 9 never change, whatever is removed beside them."""
    kept = vectors(rng, 10) + 100
    opened.write(Write([f"kept-{i}" for i in range(10)], kept, [None] * 10))
    failures: list[BaseException] = []
    stop = threading.Event()

    def read() -> None:
        try:
            while not stop.is_set():
                answer = opened.search(Query(kept, k=1))
                assert [found[0] for found in answer.ids] == [f"kept-{i}" for i in range(10)]
                assert None not in opened.get(
                    [f"kept-{i}" for i in range(10)], with_vectors=True
                )
        except BaseException as error:
            failures.append(error)

    def change() -> None:
        mine = np.random.default_rng(1)
        try:
            while not stop.is_set():
                ids = [f"id-{i}" for i in mine.integers(0, 500, 50)]
                ids = list(dict.fromkeys(ids))
                opened.write(Write(ids, -vectors(mine, len(ids)) - 100, [None] * len(ids)))
                opened.write(Write(ids[:30]))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=act) for act in (read, read, change)]
    for thread in threads:
        thread.start()
    for _ in range(15):
        opened.compact()
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_write_is_seen_by_the_next_read_of_any_thread(
    opened: OpenCollection, rng: np.random.Generator
) -> None:
    failures: list[str] = []

    def act(number: int) -> None:
        mine = np.random.default_rng(number)
        for step in range(30):
            i, vector = f"{number}-{step}", vectors(mine, 1)
            _, after = opened.write(Write([i], vector, [None]))
            row = opened.get([i], with_vectors=True)[0]
            if row is None or row.sequence != after.sequence:
                failures.append(i)
            if opened.search(Query(vector, k=1)).ids[0][0] != i:
                failures.append(i)

    threads = [threading.Thread(target=act, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert (opened.described.count, opened.described.sequence) == (180, 180)


def test_writes_that_wait_share_a_commit(
    opened: OpenCollection, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writes that queue up behind one another end in few transactions, each with its number."""
    commits: list[int] = []
    original = opened._committed

    def slow(batch):
        commits.append(len(batch))
        time.sleep(0.02)
        return original(batch)

    monkeypatch.setattr(opened, "_committed", slow)
    one = vectors(rng, 1)
    sequences: list[int] = []
    threads = [
        threading.Thread(
            target=lambda n=n: sequences.append(
                opened.write(Write([f"id-{n % 20}"], one, [None]))[1].sequence
            )
        )
        for n in range(40)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(commits) == 40
    assert len(commits) < 20
    assert sorted(sequences) == list(range(1, 41))
    assert opened.described.count == 20


def test_writes_in_one_commit_apply_in_order(
    opened: OpenCollection, rng: np.random.Generator
) -> None:
    """Each of a group sees those before it; a refused one takes nothing with it."""
    one, two = vectors(rng, 1), vectors(rng, 1)
    batch = [
        Write(["a", "b"], np.concatenate([one, two]), ['{"n":1}', None], "sha256:1"),
        Write(["a"]),
        Write(["c"], one, [None], "sha256:2"),
        Write(["a"], two, ['{"n":2}'], "sha256:1"),
        Write(["b", "nobody"]),
    ]
    opened._commit(batch)
    outcomes = [write.outcome.exception() or write.outcome.result() for write in batch]
    assert isinstance(outcomes[2], ModelMismatch)
    kept = [o for o in outcomes if isinstance(o, tuple)]
    assert [(before, c.count, c.sequence) for before, c in kept] == [
        (0, 2, 1),
        (1, 1, 2),
        (0, 2, 3),
        (1, 1, 4),
    ]
    assert opened.get(["b", "c"], with_vectors=False) == (None, None)
    row = opened.get(["a"], with_vectors=True)[0]
    assert row is not None
    assert (row.sequence, row.payload) == (3, b'{"n":2}')
    assert opened.search(Query(two, k=9)).ids[0] == ["a"]
    assert opened.described.model_digest == "sha256:1"


def test_a_search_whose_hits_keep_changing_still_ends(
    opened: OpenCollection, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were the hits replaced at every try, the search holds the next write back."""
    vector = vectors(rng, 1)
    opened.write(Write(["a"], vector, ["{}"]))
    original = opened._truth.contents
    tries: list[int] = []

    def replaced(slots, **options):
        tries.append(1)
        if not opened._writer.locked():
            opened.write(Write(["a"], vector, ["{}"]))
        return original(slots, **options)

    monkeypatch.setattr(opened._truth, "contents", replaced)
    answer = opened.search(Query(vector, k=1))
    assert answer.ids[0][0] == "a"
    assert len(tries) == 9


def test_what_cannot_be_indexed_does_not_become_the_truth(
    opened: OpenCollection, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.write(Write(["a"], vectors(rng, 1), [None]))

    def fail(*_: object) -> None:
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr("embedkit.retrieve.index.layered.LayeredIndex.after_writes", fail)
        with pytest.raises(MemoryError):
            opened.write(Write(["b"], vectors(rng, 1), [None]))
    assert opened.get(["b"], with_vectors=False) == (None,)
    after = opened.write(Write(["c"], vectors(rng, 1), [None]))[1]
    assert (after.count, after.sequence) == (2, 2)


def test_a_dropped_collection_is_not_found(tmp_path: Path, rng: np.random.Generator) -> None:
    create(tmp_path, Collection("c", DIM))
    opened = OpenCollection(tmp_path)
    opened.write(Write(["a"], vectors(rng, 1), [None]))
    opened.close(dropped=True)
    for file in tmp_path.iterdir():
        file.unlink()
    for act in (
        lambda: opened.write(Write(["a"])),
        lambda: opened.get(["a"], with_vectors=False),
        lambda: opened.search(Query(vectors(rng, 1), k=1)),
        opened.compact,
    ):
        with pytest.raises(NotFound, match="dropped"):
            act()


def test_a_write_that_fails_leaves_the_others_of_its_commit_alone(
    opened: OpenCollection, rng: np.random.Generator
) -> None:
    """Its statements run in part: the first id is written before SQLite refuses the second."""
    rows = vectors(rng, 6)
    good = Write(["a"], rows[:1], [None])
    bad = Write(["a", "half \ud800"], rows[1:3], [None, None])
    late = Write(["b"], rows[3:4], [None])
    opened._commit([good, bad, late])
    with pytest.raises(UnicodeEncodeError):
        bad.outcome.result()
    assert good.outcome.result()[1].sequence == 1
    assert late.outcome.result()[1].sequence == 2
    a, b = opened.get(["a", "b"], with_vectors=True)
    assert a is not None
    assert b is not None
    assert a.vector is not None
    assert b.vector is not None
    assert np.array_equal(np.stack([a.vector, b.vector]), rows[[0, 3]])
    assert opened.described.count == 2
    assert opened.verify().problems == ()


def test_a_sequence_beyond_those_of_sqlite_is_after_everything(
    opened: OpenCollection, rng: np.random.Generator
) -> None:
    for number in (2**63 - 1, 2**63, 2**64 - 1):
        opened.write(Write(["a"], vectors(rng, 1), [None], if_sequence=number))
    assert opened.described.sequence == 3


def test_compaction_does_not_wait_for_a_long_reader(
    opened: OpenCollection, rng: np.random.Generator
) -> None:
    """It holds writes back meanwhile; what the reader needs stays until a later one."""
    opened.write(Write([f"id-{i}" for i in range(900)], vectors(rng, 900), ["{}"] * 900))
    is_reading, is_done = threading.Event(), threading.Event()
    seen: list[int] = []

    def read() -> None:
        with opened._truth.view() as view:
            view.sequence()
            is_reading.set()
            is_done.wait(25)  # less than SQLite would wait for it
            seen.append(len(view._slots()))

    reader = threading.Thread(target=read)
    reader.start()
    is_reading.wait()
    opened.write(Write([f"id-{i}" for i in range(800)]))
    opened.compact()
    was_reading = reader.is_alive()
    is_done.set()
    reader.join()
    assert was_reading
    assert seen == [900]
    opened.compact()
    log = opened.folder / "truth.sqlite-wal"
    assert log.stat().st_size == 0
    assert opened.verify().vectors == 100
