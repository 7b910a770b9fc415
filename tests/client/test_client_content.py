"""Collections through both clients, and what they refuse before it is sent."""

from typing import Any

import numpy as np
import pytest

from embedkit.errors import (
    AlreadyExists,
    BadImage,
    InvalidInput,
    ModelMismatch,
    NotFound,
)
from embedkit.types import Collection, Hit, Record
from tests.client.asking import Ask


def test_the_life_of_a_collection(ask: Ask, rng) -> None:
    made = ask("create_collection", "c", dim=4, metric="l2")
    assert made == Collection("c", 4, "l2")
    vectors = rng.standard_normal((3, 4)).astype(np.float32)
    payloads = [{"n": 2**60, "t": "ä"}, None, {}]
    assert ask("upsert", "c", ["a", "b", "c"], vectors=vectors, payloads=payloads) == 1
    hits = ask("search", "c", vectors=vectors, k=2)
    assert [h[0].id for h in hits] == ["a", "b", "c"]
    assert hits[0][0] == Hit("a", 0.0, {"n": 2**60, "t": "ä"})
    assert hits[1][0].payload is None
    assert hits[2][0].payload == {}
    single = ask("search", "c", vectors=vectors[0], k=1, with_payload=False)
    assert single == [[Hit("a", 0.0, None)]]
    got = ask("get", "c", ["b", "nobody", "a"])
    assert got[1] is None
    assert isinstance(got[0], Record)
    assert got[0].vector is not None
    assert got[0].vector.tobytes() == vectors[1].tobytes()
    assert (got[2].payload, got[2].sequence) == ({"n": 2**60, "t": "ä"}, 1)
    assert ask("get", "c", ["a"], with_vectors=False)[0].vector is None
    assert ask("delete", "c", ["a", "nobody", "a"]) == 1
    assert ask("describe", "c") == Collection("c", 4, "l2", count=2, sequence=2)
    assert ask("collections") == [ask("describe", "c")]
    assert ask("compact", "c") >= 0
    with pytest.raises(AlreadyExists):
        ask("create_collection", "c", dim=4)
    ask("drop_collection", "c")
    assert ask("collections") == []
    with pytest.raises(NotFound):
        ask("describe", "c")


def test_images_are_stored_and_searched(ask: Ask, rng) -> None:
    made = ask("create_collection", "c", model="m")
    assert (made.dim, made.model, made.model_digest) == (4, "m", "sha256:one")
    files = [rng.bytes(20) for _ in range(150)]
    ids = [f"file-{i}" for i in range(150)]
    ask("upsert", "c", ids, images=files, payloads=[{"i": i} for i in range(150)])
    hits = ask("search", "c", images=files, k=1)
    assert [h[0].id for h in hits] == ids
    assert [h[0].payload["i"] for h in hits] == list(range(150))
    with pytest.raises(BadImage, match="images 64 to 127: "):
        ask("upsert", "c", ids, images=[*files[:70], b"bad", *files[71:]])
    with pytest.raises(ModelMismatch):
        ask("search", "c", vectors=np.ones(4), model_digest="sha256:other")


def test_filters_choose_what_is_found_and_what_is_deleted(ask: Ask, rng) -> None:
    ask("create_collection", "c", dim=4)
    vectors = rng.standard_normal((6, 4)).astype(np.float32)
    payloads = [{"n": 2**60 + i, "odd key": {"t": "it's"}} for i in range(6)]
    ask("upsert", "c", list("abcdef"), vectors=vectors, payloads=payloads)
    (hits,) = ask("search", "c", vectors=vectors[0], filter=f"n > {2**60 + 3}")
    assert {hit.id for hit in hits} == {"e", "f"}
    (hits,) = ask("search", "c", vectors=vectors[0], filter="\"odd key\".t = 'it''s'")
    assert hits[0].id == "a"
    assert len(hits) == 6
    assert ask("delete", "c", filter=f"n in ({2**60}, {2**60 + 1})") == 2
    assert ask("delete", "c", filter="") == 0
    assert [r is None for r in ask("get", "c", list("abc"))] == [True, True, False]


def test_large_upserts_searches_and_lookups_are_cut(ask: Ask, rng, script) -> None:
    script.max_message_bytes = 1_000_000
    ask("create_collection", "c", dim=64)
    vectors = rng.standard_normal((5000, 64)).astype(np.float32)
    ids = [f"id-{i}" for i in range(5000)]
    payloads = [{"text": "x" * int(n)} for n in rng.integers(0, 300, 5000)]
    sequence = ask("upsert", "c", ids, vectors=vectors, payloads=payloads)
    after = ask("describe", "c")
    assert after.count == 5000
    assert after.sequence == sequence > 2
    got = ask("get", "c", ids)
    assert all(r.vector.tobytes() == v.tobytes() for r, v in zip(got, vectors, strict=True))
    assert [r.payload for r in got] == payloads
    hits = ask("search", "c", vectors=vectors[:700], k=3)
    assert [h[0].id for h in hits] == ids[:700]
    assert ask("delete", "c", ids[:4000]) == 4000
    assert ask("describe", "c").count == 1000


ONE = np.ones(4)


REFUSED: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("upsert", {"ids": "a", "vectors": np.ones((1, 4))}, r"write \['a'\]"),
    ("upsert", {"ids": [1], "vectors": np.ones((1, 4))}, r"str\(1\)"),
    ("upsert", {"ids": ["a", "b"], "vectors": np.ones((1, 4))}, "2 vectors"),
    ("upsert", {"ids": ["a", "a"], "vectors": np.ones((2, 4))}, "'a' 2 times"),
    ("upsert", {"ids": ["a"]}, "neither"),
    ("upsert", {"ids": ["a"], "vectors": np.ones((1, 4)), "images": b"x"}, "both"),
    ("upsert", {"ids": ["a"], "vectors": np.ones((1, 1, 4))}, r"\(n, d\)"),
    ("upsert", {"ids": ["a"], "vectors": [["x"]]}, r"\(n, d\)"),
    ("upsert", {"ids": ["a"], "vectors": ONE, "payloads": [1]}, "payload 0"),
    (
        "upsert",
        {"ids": ["a"], "vectors": ONE, "payloads": [{"x": {1}}]},
        "payload 0",
    ),
    (
        "upsert",
        {"ids": ["a"], "vectors": ONE, "payloads": [{"x": float("nan")}]},
        "payload 0",
    ),
    ("upsert", {"ids": ["a"], "vectors": ONE, "payloads": []}, "1 payloads"),
    ("upsert", {"ids": ["a"], "vectors": np.zeros(4)}, "zeros in row 0"),
    ("upsert", {"ids": ["a"], "vectors": np.ones(5)}, r"\(n, 4\)"),
    ("search", {"vectors": ONE, "k": 0}, "whole number of at least 1"),
    ("search", {"vectors": ONE, "k": -1}, "whole number of at least 1"),
    ("search", {"vectors": ONE, "filter": "a == 1"}, "did you mean '='"),
    ("search", {}, "neither"),
    ("delete", {"ids": "a"}, r"write \['a'\]"),
    ("delete", {"ids": ["a"], "filter": "a = 1"}, "ids or a filter"),
    ("delete", {"filter": "a ="}, "got the end"),
    ("get", {"ids": [None]}, "ids as text"),
)


def test_what_does_not_fit_is_refused(ask: Ask) -> None:
    ask("create_collection", "c", dim=4)
    for method, values, message in REFUSED:
        with pytest.raises(InvalidInput, match=message):
            ask(method, "c", **values)
    assert ask("describe", "c") == Collection("c", 4)
    with pytest.raises(InvalidInput, match="metric"):
        ask("create_collection", "d", dim=4, metric="hamming")


@pytest.mark.parametrize("k", [2.5, 0, -1, "3", 2**32])
def test_a_k_that_is_no_count_is_refused(ask: Ask, k) -> None:
    with pytest.raises(InvalidInput, match="whole number of at least 1"):
        ask("search", "photos", vectors=[0.0, 1.0], k=k)


@pytest.mark.parametrize("dims", [2.5, -1, "3"])
def test_dims_that_are_no_count_are_refused(ask: Ask, rng, dims) -> None:
    images = rng.integers(0, 256, (1, 4, 4, 3), dtype=np.uint8)
    with pytest.raises(InvalidInput, match="whole number of at least 0"):
        ask("embed", images, dims=dims)


def test_an_id_that_is_no_text_for_others_is_refused(ask: Ask) -> None:
    with pytest.raises(InvalidInput, match="UTF-8"):
        ask("get", "photos", ["\udcff"])


def test_nothing_to_write_writes_nothing(ask: Ask) -> None:
    ask("create_collection", "c", dim=4)
    assert ask("upsert", "c", [], vectors=np.ones((0, 4))) == 0
    assert ask("delete", "c", []) == 0
    assert ask("get", "c", []) == []
    assert ask("search", "c", vectors=np.ones((0, 4))) == []


class Counted(str):
    """An id that counts how often it is compared."""

    __slots__ = ()
    comparisons = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Counted.comparisons += 1
        return str.__eq__(self, other)


def test_a_repeated_id_is_found_without_comparing_all_with_all(ask: Ask) -> None:
    Counted.comparisons = 0
    ids = [Counted(f"id-{i}") for i in range(2000)]
    ids[-1] = Counted("id-1998")
    with pytest.raises(InvalidInput, match="'id-1998'"):
        ask("upsert", "c", ids, vectors=np.ones((2000, 1)))
    assert Counted.comparisons < 20_000
