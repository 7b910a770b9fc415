"""What a vector store refuses, and odd input that it takes; for every store."""

import numpy as np
import pytest

from embedkit.errors import (
    InvalidInput,
    MessageTooLarge,
    NotFound,
)
from embedkit.retrieve.store import Query, Scan, VectorStore
from embedkit.types import Collection, Metric
from tests.conformance.vectors import METRICS, names, vectors


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dim": 0}, "dimension"),
        ({"dim": 1 << 20}, "dimension"),
        ({"dim": 3, "metric": "hamming"}, "cosine"),
        ({"dim": 3, "kind": "magic"}, "auto"),
    ],
)
def test_a_collection_that_cannot_be_is_refused(
    store: VectorStore, values: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        store.create(Collection("c", **values))  # type: ignore[arg-type]
    assert store.collections() == ()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[:, :7], r"\(n, 8\)"),
        (lambda x: x[0], r"\(n, 8\)"),
        (lambda x: x.astype(np.float64), "float64"),
        (lambda x: np.where(np.arange(3)[:, None] == 1, np.nan, x).astype("f4"), "row 1"),
        (lambda x: np.where(np.arange(3)[:, None] == 2, np.inf, x).astype("f4"), "row 2"),
    ],
)
def test_vectors_that_cannot_be_compared_are_refused(
    store: VectorStore, rng: np.random.Generator, metric: Metric, change, message: str
) -> None:
    store.create(Collection("c", dim=8, metric=metric))
    bad = change(vectors(rng, 3))
    with pytest.raises(InvalidInput, match=message):
        store.upsert("c", names(3), bad)
    with pytest.raises(InvalidInput, match=message):
        store.search("c", Query(bad, k=1))
    assert store.describe("c").count == 0


def test_zero_vectors_have_no_cosine_but_a_distance(store: VectorStore) -> None:
    zeros = np.zeros((1, 4), np.float32)
    store.create(Collection("cosine", dim=4))
    with pytest.raises(InvalidInput, match="zeros in row 0"):
        store.upsert("cosine", ["a"], zeros)
    with pytest.raises(InvalidInput, match="zeros in row 0"):
        store.search("cosine", Query(zeros, k=1))
    store.create(Collection("l2", dim=4, metric="l2"))
    store.upsert("l2", ["a"], zeros)
    assert store.search("l2", Query(zeros, k=1)).scores[0].tolist() == [0.0]


@pytest.mark.parametrize("metric", METRICS)
def test_huge_and_tiny_vectors(store: VectorStore, metric: Metric) -> None:
    store.create(Collection("c", dim=2, metric=metric))
    huge = np.array([[3e38, 3e38]], np.float32)
    if metric == "cosine":
        store.upsert("c", ["huge"], huge)
        store.upsert("c", ["tiny"], np.array([[0, 1e-45]], np.float32))
        answer = store.search("c", Query(huge, k=2))
        assert answer.ids[0] == ["huge", "tiny"]
        np.testing.assert_allclose(answer.scores[0], [1, 0.5**0.5], rtol=1e-6)
    else:
        with pytest.raises(InvalidInput, match="shorter"):
            store.upsert("c", ["huge"], huge)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a", "b", "a"], "'a' twice"),
        (["a", "", "b"], "non-empty"),
        (["a", "b\0", "c"], "non-empty"),
        (["a", "b", "x" * 513], "512 bytes"),
        (["a", "b", "ä" * 300], "512 bytes"),
        (["a", "b"], "one vector for each of 2 ids"),
        (["a", "b", 3], "text"),
    ],
)
def test_ids_that_are_refused(
    store: VectorStore, rng: np.random.Generator, ids: list, message: str
) -> None:
    store.create(Collection("c", dim=8))
    with pytest.raises(InvalidInput, match=message):
        store.upsert("c", ids, vectors(rng, 3))
    assert store.describe("c") == Collection("c", dim=8)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"[1]", "JSON object"),
        (b"3", "JSON object"),
        (b"{", "JSON object"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": "\xff"}', "JSON object"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "'c' is there twice"),
        (b'{"a":' + b"[" * 200 + b"]" * 200 + b"}", "200 levels"),
        (b'{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}", "JSON object"),
        (b'{"a":"' + b"x" * 70_000 + b'"}', "65536 bytes"),
    ],
)
def test_payloads_that_are_refused(
    store: VectorStore, rng: np.random.Generator, payload: bytes, message: str
) -> None:
    store.create(Collection("c", dim=8))
    with pytest.raises(InvalidInput, match=message):
        store.upsert("c", names(2), vectors(rng, 2), [b"{}", payload])
    with pytest.raises(InvalidInput, match="one for each of 2"):
        store.upsert("c", names(2), vectors(rng, 2), [b"{}"])
    assert store.describe("c").sequence == 0


def test_queries_that_are_refused(store: VectorStore, rng: np.random.Generator) -> None:
    store.create(Collection("c", dim=8))
    one = vectors(rng, 1)
    for query, message in (
        (Query(one, k=0), "k from 1"),
        (Query(one, k=-1), "k from 1"),
        (Query(one, k=1 << 20), "k from 1"),
        (Query(vectors(rng, 200), k=10_000), "hits"),
        (Query(one, k=1, filter="year >> 2000"), "position 7 of the filter"),
    ):
        with pytest.raises(InvalidInput, match=message):
            store.search("c", query)


def test_an_unknown_collection_is_not_found_everywhere(
    store: VectorStore, rng: np.random.Generator
) -> None:
    store.create(Collection("photos", dim=8))
    for act in (
        lambda: store.describe("fotos"),
        lambda: store.drop("fotos"),
        lambda: store.upsert("fotos", ["a"], vectors(rng, 1)),
        lambda: store.delete("fotos", ["a"]),
        lambda: store.delete("fotos", filter="a = 1"),
        lambda: store.get("fotos", ["a"]),
        lambda: store.search("fotos", Query(vectors(rng, 1), k=1)),
        lambda: store.compact("fotos"),
        lambda: store.scan("fotos", Scan()),
        lambda: store.sample("fotos", Scan(), seed=0),
        lambda: store.verify("fotos"),
        lambda: store.at("fotos", [1]),
    ):
        with pytest.raises(NotFound, match="photos"):
            act()


def test_strange_ids_survive(store: VectorStore, rng: np.random.Generator) -> None:
    ids = [
        '"',
        "'; DROP TABLE items; --",
        "%",
        "☃/ä.jpg",
        "\n",
        " a ",
        "1",
        "01",
        "1.0",
        "null",
    ]
    base = vectors(rng, len(ids))
    store.create(Collection("c", dim=8))
    store.upsert("c", ids, base)
    rows = store.get("c", ids)
    for row, vector, i in zip(rows, base, ids, strict=True):
        assert row is not None
        assert row.id == i
        assert row.vector is not None
        assert np.array_equal(row.vector, vector)
    assert store.delete("c", ids[:5])[0] == 5
    assert [row.id for row in store.get("c", ids) if row] == ids[5:]


def test_an_answer_counts_what_each_hit_has(
    store: VectorStore, rng: np.random.Generator
) -> None:
    """The same 20 items are found by each of 100 queries: 100 times their bytes."""
    base = rng.standard_normal((20, 512)).astype(np.float32)
    store.create(Collection("c", dim=512))
    store.upsert("c", names(20), base, [b'{"a":"%s"}' % (b"x" * 1000)] * 20)
    queries = np.tile(base, (5, 1))
    for options in ({"with_payload": False, "with_vectors": True}, {"with_payload": True}):
        few, many = (
            Query(q, 20, answer_bytes=1 << 20, **options) for q in (queries[:1], queries)
        )
        assert len(store.search("c", few).hits[0]) == 20
        with pytest.raises(MessageTooLarge, match="at most 1048576 bytes"):
            store.search("c", many)
