"""Search and deletion with a filter: against brute force, and while others write."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embedkit.errors import InvalidInput
from embedkit.retrieve.collection import OpenCollection
from embedkit.retrieve.filter.sql import condition
from embedkit.retrieve.store import Answer, Query
from embedkit.retrieve.stores.local import LocalStore
from embedkit.retrieve.truth.truth import create
from embedkit.retrieve.truth.view import View
from embedkit.retrieve.write import Write
from embedkit.types import Collection, Metric

DIM = 8
COUNT = 6000
SHARES = {"half": 0.5, "twentieth": 0.05, "two hundredth": 0.005}


def vectors(rng: np.random.Generator, count: int, dim: int = DIM) -> np.ndarray:
    return rng.standard_normal((count, dim)).astype(np.float32)


def scores_of(queries: np.ndarray, base: np.ndarray, metric: Metric) -> np.ndarray:
    """Every score in float64, from the definitions."""
    q, b = queries.astype(np.float64), base.astype(np.float64)
    if metric == "l2":
        return -((q[:, None, :] - b[None, :, :]) ** 2).sum(axis=2)
    if metric == "cosine":
        q /= np.linalg.norm(q, axis=1, keepdims=True)
        b /= np.linalg.norm(b, axis=1, keepdims=True)
    return q @ b.T


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    opened = LocalStore(tmp_path / "data")
    yield opened
    opened.close()


@pytest.mark.parametrize("metric", ["cosine", "inner_product", "l2"])
def test_the_same_as_brute_force_at_every_selectivity(
    store: LocalStore, rng: np.random.Generator, metric: Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One query and many, few matches and many, over several blocks with removed rows."""
    monkeypatch.setattr("embedkit.retrieve.index.blocks._BLOCK_BYTES", 4 * DIM * 2500)
    base, draws = vectors(rng, COUNT), rng.random(COUNT)
    ids = [f"id-{i}" for i in range(COUNT)]
    payloads = [json.dumps({"draw": draw}).encode() for draw in draws]
    store.create(Collection("c", DIM, metric))
    store.upsert("c", ids, base, payloads)
    store.delete("c", ids[::13])
    kept = np.arange(COUNT) % 13 > 0
    blocks = store._open["c"]._state.index.tail._blocks
    assert len(blocks) == 3
    assert any(len(block.dead) for block in blocks)
    for share in (1.0, *SHARES.values(), 0.0):
        allowed = np.flatnonzero(kept & (draws < share))
        for count in (1, 3, 40):
            queries = vectors(rng, count)
            answer = store.search("c", Query(queries, k=20, filter=f"draw < {share}"))
            expected = scores_of(queries, base[allowed], metric)
            order = np.argsort(-expected, axis=1, kind="stable")[:, :20]
            assert answer.ids == [[ids[i] for i in allowed[best]] for best in order]
            np.testing.assert_allclose(
                np.array(answer.scores),
                np.take_along_axis(expected, order, 1),
                rtol=1e-5,
                atol=1e-6,
            )
            assert answer.exact


def test_equal_scores_among_the_matching_come_in_the_order_of_writing(
    store: LocalStore,
) -> None:
    store.create(Collection("c", 2))
    same = np.ones((60, 2), np.float32)
    ids = [f"id-{i}" for i in range(60)]
    store.upsert("c", ids, same, [b'{"n":%d}' % (i % 3) for i in range(60)])
    for count in (1, 40):
        answer = store.search("c", Query(same[:count], k=5, filter="n = 1"))
        for found in answer.ids:
            assert found == ["id-1", "id-4", "id-7", "id-10", "id-13"]


def test_fewer_matches_than_k_and_none(store: LocalStore, rng: np.random.Generator) -> None:
    store.create(Collection("c", DIM))
    query = Query(vectors(rng, 2), k=10, filter="exists a")
    assert store.search("c", query).ids == [[], []]
    store.upsert("c", ["x", "y", "z"], vectors(rng, 3), [b'{"a":1}', None, b'{"b":1}'])
    assert store.search("c", query).ids == [["x"]] * 2
    negated = Query(query.vectors, k=10, filter="not exists a")
    assert set(store.search("c", negated).ids[0]) == {"y", "z"}


def test_deletion_by_filter(store: LocalStore, rng: np.random.Generator) -> None:
    store.create(Collection("c", DIM))
    base = vectors(rng, 100)
    ids = [f"id-{i}" for i in range(100)]
    store.upsert("c", ids, base, [b'{"i":%d}' % i for i in range(100)])
    deleted, after = store.delete("c", filter="i < 30 or i = 99")
    assert (deleted, after.count, after.sequence) == (31, 69, 2)
    assert [row is None for row in store.get("c", ids)] == [
        i < 30 or i == 99 for i in range(100)
    ]
    found = store.search("c", Query(base, k=100)).ids
    assert all(len(rows) == 69 for rows in found)
    assert store.delete("c", filter="i < 30")[0] == 0
    assert store.delete("c")[0] == 0
    assert store.delete("c", filter="")[0] == 0
    with pytest.raises(InvalidInput, match="ids or a filter"):
        store.delete("c", ["id-50"], filter="i = 50")
    with pytest.raises(InvalidInput, match="position 3"):
        store.delete("c", filter="i ! 3")
    assert store.describe("c").count == 69
    assert store.delete("c", filter="not i = 2000")[0] == 69


def opened_at(folder: Path) -> OpenCollection:
    create(folder, Collection("c", DIM, "l2"))
    return OpenCollection(folder)


def test_writes_in_one_commit_filter_what_came_before(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """A deletion sees the writes ahead of it in its own transaction, and not those behind."""
    opened = opened_at(tmp_path)
    two = vectors(rng, 2)
    batch = [
        Write(["a", "b"], two, ['{"n":1}', '{"n":2}']),
        Write((), where=condition("n = 1")),
        Write(["c"], two[:1], ['{"n":1}']),
    ]
    opened._commit(batch)
    assert [write.outcome.result()[0] for write in batch] == [0, 1, 0]
    assert opened.search(Query(two[:1], k=9)).ids == [["c", "b"]]
    opened.close()


State = dict[str, tuple[np.ndarray, int]]


def changed(
    opened: OpenCollection, rng: np.random.Generator, state: State
) -> tuple[int, State]:
    """One random write; returns its number, and what the collection holds after it."""
    if rng.random() < 0.2:
        bound = int(rng.integers(0, 3))
        deleted, after = opened.write(Write((), where=condition(f"n <= {bound}")))
        kept = {i: row for i, row in state.items() if row[1] > bound}
        assert deleted == len(state) - len(kept)
        return after.sequence, kept
    ids = [f"id-{i}" for i in rng.choice(60, size=rng.integers(1, 12), replace=False)]
    new, marks = vectors(rng, len(ids)), rng.integers(0, 10, len(ids)).tolist()
    _, after = opened.write(Write(ids, new, [f'{{"n":{mark},"t":"x"}}' for mark in marks]))
    return after.sequence, state | dict(zip(ids, zip(new, marks, strict=True), strict=True))


def expected_hits(state: State, query: np.ndarray, bound: int) -> tuple[list[str], list[float]]:
    found = [(i, row[0]) for i, row in state.items() if row[1] < bound]
    scored = [(-float(((v - query).astype(np.float64) ** 2).sum()), i) for i, v in found]
    best = sorted(scored, reverse=True)[:7]
    return [i for _, i in best], [score for score, _ in best]


def test_searches_during_writes_return_a_state_that_existed(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """Ids, payloads and scores of each answer are exactly those of the sequence it names."""
    opened = opened_at(tmp_path)
    history: dict[int, State] = {0: {}}
    answers: list[tuple[np.ndarray, int, Answer]] = []
    failures: list[BaseException] = []
    stop = threading.Event()

    def search(seed: int) -> None:
        mine = np.random.default_rng(seed)
        try:
            while not stop.is_set():
                query, bound = vectors(mine, 1), int(mine.integers(1, 10))
                text = f"n < {bound}" + (" and t like '%'" if seed == 2 else "")
                answers.append((query[0], bound, opened.search(Query(query, 7, text))))
        except BaseException as error:
            failures.append(error)

    searchers = [threading.Thread(target=search, args=(seed,)) for seed in range(3)]
    for thread in searchers:
        thread.start()
    state: State = {}
    end = time.monotonic() + 2.0
    while time.monotonic() < end:
        sequence, state = changed(opened, rng, state)
        history[sequence] = state
        if sequence % 20 == 0:
            opened.compact()
    stop.set()
    for thread in searchers:
        thread.join()
    opened.close()
    assert not failures
    assert len(history) > 50
    assert len({answer.collection.sequence for *_, answer in answers}) > 20
    for query, bound, answer in answers:
        ids, scores = expected_hits(history[answer.collection.sequence], query, bound)
        (hits,) = answer.hits
        assert hits.ids == ids
        assert all(json.loads(p or b"")["n"] < bound for p in hits.payloads or ())
        np.testing.assert_allclose(answer.scores[0], scores, rtol=1e-5)


def test_a_search_that_a_write_overtakes_is_repeated_on_the_newer_state(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit between the view and the published state, at every try until writes are held."""
    opened = opened_at(tmp_path)
    vector = vectors(rng, 1)
    opened.write(Write(["a"], vector, ['{"n":0}']))
    original = View.sequence
    tries: list[int] = []

    def overtaken(view: View) -> int:
        sequence = original(view)
        tries.append(sequence)
        if not opened._writer.locked():
            opened.write(Write(["a"], vector, [f'{{"n":{len(tries)}}}']))
        return sequence

    monkeypatch.setattr(View, "sequence", overtaken)
    answer = opened.search(Query(vector, k=1, filter="exists n"))
    assert tries == list(range(1, 10))
    assert (answer.hits[0].payloads or ())[0] == b'{"n":8}'
    assert answer.collection.sequence == 9
    opened.close()


def test_hostile_filters_raise_nothing_but_invalid_input(
    store: LocalStore, rng: np.random.Generator
) -> None:
    """Ten thousand texts made of the language's own parts, run where they are read."""
    store.create(Collection("c", DIM))
    payloads = [b'{"a":1,"b":{"c":"x\\u0000y"},"odd key":[1]}', None, b'{"a":1e308,"b":"100%"}']
    store.upsert("c", ["x", "y", "z"], vectors(rng, 3), payloads)
    keys = ["a", "b.c", '"odd key"', '""']
    values = ["'x%'", "'\\'", "1", "-0.5", "99999999999999999999", "null", "true"]
    operators = ["=", "!=", "<", "like", ">="]
    parts = [*keys, *values, *operators, *"(),'", "and", "or", "not", "in (", "exists"]
    query = vectors(rng, 1)
    ran = 0
    for _ in range(10_000):
        shape = rng.integers(0, 3)
        text = " ".join(rng.choice(parts, rng.integers(1, 9)))
        if shape:  # a comparison, so that many are run
            text = f"{rng.choice(keys)} {rng.choice(operators)} {rng.choice(values)}"
        try:
            store.search("c", Query(query, k=3, filter=text))
            ran += 1
        except InvalidInput:
            pass
    assert 1000 < ran < 9000
    assert store.describe("c").count == 3
