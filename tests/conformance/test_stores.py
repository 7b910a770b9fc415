"""The contract of a vector store, for every registered one."""

import inspect

import numpy as np
import pytest

from embedkit.errors import (
    AlreadyExists,
    InvalidInput,
    MessageTooLarge,
    ModelMismatch,
    SequenceConflict,
)
from embedkit.retrieve.store import Query, Scan, VectorStore, stores
from embedkit.types import Collection, Metric
from tests.conformance.vectors import LOCAL, METRICS, names, scores_of, vectors

"""Stores that need nothing but a directory; others bring a fixture of their own."""


def test_each_file_registers_its_own_name() -> None:
    assert set(stores.names()) >= set(LOCAL)
    for name in stores.names():
        assert callable(stores.get(name))


@pytest.mark.parametrize("name", LOCAL)
def test_a_store_has_every_method_of_the_protocol(name: str) -> None:
    kind = stores.get(name)
    for method, function in inspect.getmembers(VectorStore, inspect.isfunction):
        if not method.startswith("_"):
            ours = inspect.signature(getattr(kind, method)).parameters
            theirs = inspect.signature(function).parameters
            assert list(ours) == list(theirs), method


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("count", [1, 3, 64])
def test_search_agrees_with_the_definition_of_the_metric(
    store: VectorStore, rng: np.random.Generator, metric: Metric, count: int
) -> None:
    base, queries = vectors(rng, 500), vectors(rng, count)
    store.create(Collection("c", dim=8, metric=metric))
    store.upsert("c", names(500), base)
    answer = store.search("c", Query(queries, k=10))
    expected = scores_of(queries, base, metric)
    for query, hits in enumerate(answer.hits):
        best = np.argsort(-expected[query], kind="stable")[:10]
        assert hits.ids == [f"id-{i}" for i in best]
        np.testing.assert_allclose(hits.scores, expected[query][best], rtol=1e-6, atol=1e-6)
    assert answer.exact


@pytest.mark.parametrize("metric", METRICS)
def test_a_vector_finds_itself_first(
    store: VectorStore, rng: np.random.Generator, metric: Metric
) -> None:
    base = vectors(rng, 50)
    base /= np.linalg.norm(base, axis=1, keepdims=True)
    store.create(Collection("c", dim=8, metric=metric))
    store.upsert("c", names(50), base)
    answer = store.search("c", Query(base, k=1))
    assert answer.ids == [[i] for i in names(50)]
    best = 0.0 if metric == "l2" else 1.0
    np.testing.assert_allclose(np.concatenate(answer.scores), best, atol=1e-6)
    if metric != "inner_product":
        assert set(np.concatenate(answer.scores).tolist()) == {best}


@pytest.mark.parametrize("metric", METRICS)
def test_equal_scores_come_in_the_order_of_writing(store: VectorStore, metric: Metric) -> None:
    store.create(Collection("c", dim=4, metric=metric))
    same = np.ones((6, 4), np.float32)
    store.upsert("c", ["f", "b", "d", "a", "e", "c"], same)
    for count in (1, 40):
        answer = store.search("c", Query(np.ones((count, 4), np.float32), k=6))
        for found in answer.ids:
            assert found == ["f", "b", "d", "a", "e", "c"]
    store.upsert("c", ["f"], same[:1])
    again = store.search("c", Query(same[:1], k=6)).ids[0]
    assert again == ["b", "d", "a", "e", "c", "f"]


def test_k_beyond_the_collection_gives_all_of_it(
    store: VectorStore, rng: np.random.Generator
) -> None:
    store.create(Collection("c", dim=8))
    empty = store.search("c", Query(vectors(rng, 2), k=5))
    assert empty.ids == [[], []]
    store.upsert("c", names(3), vectors(rng, 3))
    answer = store.search("c", Query(vectors(rng, 2), k=1000))
    assert [len(found) for found in answer.ids] == [3, 3]
    assert [len(scores) for scores in answer.scores] == [3, 3]
    assert store.search("c", Query(np.empty((0, 8), np.float32), k=5)).hits == ()


def test_what_went_in_comes_out_bit_for_bit(
    store: VectorStore, rng: np.random.Generator
) -> None:
    base = vectors(rng, 4)
    base[0] = [1e-45, -0.0, 1e-30, 1e12, 0.1, -1, 2, 3]
    payloads = [b'{"a": 9007199254740993}', None, '{"ä":"☃\\u0000"}'.encode(), b"{}"]
    store.create(Collection("c", dim=8))
    store.upsert("c", names(4), base, payloads)
    rows = store.get("c", [*names(4), "nobody"])
    assert rows[4] is None
    for row, vector, payload in zip(rows[:4], base, payloads, strict=True):
        assert row is not None
        assert row.vector is not None
        assert row.vector.tobytes() == vector.tobytes()
        assert row.payload == payload
        assert row.sequence == 1
    bare = store.get("c", ["id-0"], with_vectors=False)[0]
    assert bare is not None
    assert bare.vector is None
    found = store.search("c", Query(base[2:3], k=1, with_vectors=True)).hits[0]
    assert found.vectors is not None
    assert found.vectors.tobytes() == base[2].tobytes()
    assert (found.payloads or [])[0] == payloads[2]
    plain = store.search("c", Query(base[2:3], k=1, with_payload=False)).hits[0]
    assert plain.payloads is None
    assert plain.vectors is None


def test_upsert_replaces_and_delete_removes(
    store: VectorStore, rng: np.random.Generator
) -> None:
    base = vectors(rng, 6)
    store.create(Collection("c", dim=8))
    assert store.upsert("c", names(3), base[:3]).sequence == 1
    after = store.upsert("c", names(3, start=1), base[3:], [b'{"new":1}'] * 3)
    assert (after.count, after.sequence) == (4, 2)
    assert store.search("c", Query(base[1:2], k=1)).scores[0][0] < 0.9999
    deleted, after = store.delete("c", ["id-1", "nobody", "id-0"])
    assert (deleted, after.count, after.sequence) == (2, 2, 3)
    assert store.get("c", ["id-0", "id-1"]) == (None, None)
    left = store.search("c", Query(base[:1], k=9)).ids[0]
    assert set(left) == {"id-2", "id-3"}
    assert store.describe("c").count == 2


def test_names_of_collections(store: VectorStore) -> None:
    made = store.create(Collection("b.2-x_Y", dim=3, metric="l2", model="m", model_digest="d"))
    assert made == Collection("b.2-x_Y", 3, "l2", "auto", "m", "d", 0, 0)
    store.create(Collection("a", dim=3))
    assert [c.name for c in store.collections()] == ["a", "b.2-x_Y"]
    with pytest.raises(AlreadyExists, match="'a'"):
        store.create(Collection("a", dim=4))
    store.drop("a")
    assert [c.name for c in store.collections()] == ["b.2-x_Y"]
    store.create(Collection("a", dim=5))
    assert store.describe("a").dim == 5
    for bad in ("", ".", "..", "../a", "a/b", "-a", "a b", "a\n", "ä", "x" * 64):
        with pytest.raises(InvalidInput, match="collection name"):
            store.create(Collection(bad, dim=3))


def test_a_filter_chooses_what_is_found_and_what_is_deleted(
    store: VectorStore, rng: np.random.Generator
) -> None:
    base = vectors(rng, 200)
    payloads = [
        b'{"year":%d,"of":{"kind":"%s"}}' % (1900 + i, b"ab"[i % 2 :][:1]) for i in range(199)
    ]
    store.create(Collection("c", dim=8))
    store.upsert("c", names(200), base, [*payloads, None])
    query = Query(base[:3], k=10, filter="year >= 1950 and of.kind = 'a'")
    expected = scores_of(base[:3], base, "cosine")
    expected[:, [i for i in range(200) if i < 50 or i % 2 or i == 199]] = -np.inf
    for found, row_scores in zip(store.search("c", query).ids, expected, strict=True):
        assert found == [f"id-{i}" for i in np.argsort(-row_scores)[:10]]
    deleted, after = store.delete("c", filter="of.kind = 'b'")
    assert (deleted, after.count, after.sequence) == (99, 101, 2)
    assert store.search("c", Query(base[:1], k=9, filter="of.kind = 'b'")).ids == [[]]
    assert store.delete("c", filter="year = 'text' or nothing = 1")[0] == 0
    for wrong in ("year =", "year = 1 and"):
        with pytest.raises(InvalidInput, match="of the filter, got the end"):
            store.delete("c", filter=wrong)
    with pytest.raises(InvalidInput, match="ids or a filter"):
        store.delete("c", ["id-0"], filter="year = 1900")


def test_a_write_may_depend_on_the_sequence(
    store: VectorStore, rng: np.random.Generator
) -> None:
    base = vectors(rng, 2)
    store.create(Collection("c", dim=8))
    assert store.upsert("c", ["a", "b"], base, if_sequence=0).sequence == 1
    store.upsert("c", ["b"], base[:1])
    for ids, seen in ((["b"], 1), (["new", "b"], 1), (["a"], 0)):
        with pytest.raises(SequenceConflict) as caught:
            store.upsert("c", ids, base[: len(ids)], if_sequence=seen)
        assert caught.value.sequence == 2
    assert store.get("c", ["new"]) == (None,)
    assert store.upsert("c", ["a"], base[:1], if_sequence=1).sequence == 3
    assert store.upsert("c", ["a", "b"], base, if_sequence=3).sequence == 4


def test_pages_follow_the_order_of_writing(
    store: VectorStore, rng: np.random.Generator
) -> None:
    base = vectors(rng, 50)
    store.create(Collection("c", dim=8))
    store.upsert("c", names(50), base, [b'{"n":%d}' % i for i in range(50)])
    store.upsert("c", ["id-3"], base[:1])
    order = [i for i in range(50) if i != 3] + [3]
    after: int | None = 0
    seen: list[str] = []
    while after is not None:
        page = store.scan("c", Scan(after, limit=7, with_vectors=True))
        assert len(page.rows) == 7 or page.after is None
        assert page.sequence == 2
        seen += [row.id for row in page.rows]
        after = page.after
    assert seen == [f"id-{i}" for i in order]
    some = store.scan("c", Scan(filter="n >= 48", with_payload=False))
    assert [(row.id, row.payload, row.vector) for row in some.rows] == [
        ("id-48", None, None),
        ("id-49", None, None),
    ]
    assert len(store.scan("c", Scan(with_vectors=True, answer_bytes=100)).rows) == 2
    for wrong in (Scan(limit=0), Scan(after=-1), Scan(filter="a b")):
        with pytest.raises(InvalidInput, match="expected"):
            store.scan("c", wrong)


def test_a_sample_is_that_of_its_seed(store: VectorStore, rng: np.random.Generator) -> None:
    store.create(Collection("c", dim=8))
    store.upsert("c", names(50), vectors(rng, 50))
    first, again, other = (store.sample("c", Scan(limit=9), seed=s) for s in (5, 5, 6))
    assert [row.id for row in first.rows] == [row.id for row in again.rows]
    assert [row.id for row in first.rows] != [row.id for row in other.rows]
    assert len({row.id for row in first.rows}) == 9
    assert len(store.sample("c", Scan(limit=99), seed=0).rows) == 50


def test_a_collection_remembers_the_model_that_filled_it(
    store: VectorStore, rng: np.random.Generator
) -> None:
    store.create(Collection("c", dim=8))
    one = vectors(rng, 1)
    assert store.upsert("c", ["a"], one).model_digest == ""
    assert store.upsert("c", ["b"], one, model_digest="sha256:1").model_digest == "sha256:1"
    with pytest.raises(ModelMismatch, match="sha256:2"):
        store.upsert("c", ["c"], one, model_digest="sha256:2")
    with pytest.raises(ModelMismatch, match="sha256:2"):
        store.search("c", Query(one, k=1, model_digest="sha256:2"))
    with pytest.raises(ModelMismatch):
        # The other model's dimension is not what is wrong.
        store.search("c", Query(one[:, :4], k=1, model_digest="sha256:2"))
    assert len(store.search("c", Query(one, k=3, model_digest="sha256:1")).ids[0]) == 2
    assert len(store.search("c", Query(one, k=3)).ids[0]) == 2
    assert store.describe("c").count == 2


def test_compact_gives_space_back_and_changes_nothing(
    store: VectorStore, rng: np.random.Generator
) -> None:
    base = vectors(rng, 4000)
    store.create(Collection("c", dim=8))
    store.upsert("c", names(4000), base, [b'{"text":"%s"}' % (b"x" * 200)] * 4000)
    store.delete("c", names(3900))
    before = store.search("c", Query(base[:5], k=20))
    assert store.compact("c") > 500_000
    after = store.search("c", Query(base[:5], k=20))
    assert after.ids == before.ids
    assert np.array_equal(after.scores, before.scores)
    assert store.compact("c") < 100_000


def test_a_random_history_ends_where_a_dictionary_does(
    store: VectorStore, rng: np.random.Generator
) -> None:
    store.create(Collection("c", dim=4, metric="l2"))
    model: dict[str, np.ndarray] = {}
    for _ in range(150):
        ids = [f"id-{i}" for i in rng.choice(60, size=rng.integers(1, 20), replace=False)]
        if rng.random() < 0.35:
            deleted, after = store.delete("c", ids)
            assert deleted == sum(model.pop(i, None) is not None for i in ids)
        else:
            new = vectors(rng, len(ids), 4)
            after = store.upsert("c", ids, new)
            model.update(zip(ids, new, strict=True))
        assert after.count == len(model)
        query = vectors(rng, 1, 4)
        found = store.search("c", Query(query, k=5)).ids[0]
        ranked = sorted(model, key=lambda i: ((model[i] - query[0]) ** 2).sum())
        assert found == ranked[:5]


def test_slots_stand_for_what_was_written_once(
    store: VectorStore, rng: np.random.Generator
) -> None:
    base = vectors(rng, 3)
    store.create(Collection("c", dim=8))
    store.upsert("c", ["a", "b", "c"], base, [b'{"n":1}', None, b'{"n":3}'])
    hits = store.search("c", Query(base[:1], k=3)).hits[0]
    slots = dict(zip(hits.ids, hits.slots.tolist(), strict=True))
    store.upsert("c", ["a"], base[:1], [b'{"n":9}'])
    store.delete("c", ["b"])
    gone, kept, also_gone, never = store.at(
        "c", [slots["a"], slots["c"], slots["b"], 1 << 40], with_vectors=True
    )
    assert (gone, also_gone, never) == (None, None, None)
    assert kept is not None
    assert (kept.id, kept.payload, kept.slot) == ("c", b'{"n":3}', slots["c"])
    assert np.array_equal(kept.vector, base[2])
    bare = store.at("c", [slots["c"]], with_payload=False)[0]
    assert bare is not None
    assert (bare.payload, bare.vector) == (None, None)
    with pytest.raises(MessageTooLarge, match="at most 5 bytes"):
        store.at("c", [slots["c"]], answer_bytes=5)
