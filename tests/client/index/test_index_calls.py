"""Collections through both clients and real gRPC, against brute force in numpy."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

from embedkit.client import sync
from embedkit.client.items import Batch
from embedkit.errors import (
    InvalidInput,
    NotFound,
    SequenceConflict,
)
from embedkit.types import Metric, SearchParams
from embedkit.wire.codec import encode_tensor
from embedkit.wire.proto import index_pb2
from tests.client.index.ask import Ask

METRICS: tuple[Metric, ...] = ("cosine", "inner_product", "l2")


def scores_of(queries: np.ndarray, base: np.ndarray, metric: Metric) -> np.ndarray:
    """Every score in float64, from the definitions."""
    q, b = queries.astype(np.float64), base.astype(np.float64)
    if metric == "l2":
        return -((q[:, None, :] - b[None, :, :]) ** 2).sum(axis=2)
    if metric == "cosine":
        q = q / np.linalg.norm(q, axis=1, keepdims=True)
        b = b / np.linalg.norm(b, axis=1, keepdims=True)
    return q @ b.T


def fill(ask: Ask, rng, count: int = 300, metric: Metric = "cosine") -> np.ndarray:
    base = rng.standard_normal((count, 8)).astype(np.float32)
    ask("create_collection", "c", dim=8, metric=metric)
    payloads = [{"n": i, "of": {"kind": "abcdefg"[i % 7]}} for i in range(count)]
    ask("upsert", "c", [str(i) for i in range(count)], vectors=base, payloads=payloads)
    return base


@pytest.mark.parametrize("metric", METRICS)
def test_offset_and_threshold_cut_the_ranking(ask: Ask, rng, metric: Metric) -> None:
    base = fill(ask, rng, metric=metric)
    expected = scores_of(base[:3], base, metric)
    ranking = np.argsort(-expected, axis=1, kind="stable")
    found = ask("search", "c", vectors=base[:3], k=10, offset=5)
    assert [[int(h.id) for h in hits] for hits in found] == ranking[:, 5:15].tolist()
    least = float(np.sort(expected[0])[-8]) - 1e-4
    found = ask("search", "c", vectors=base[:3], k=20, offset=2, threshold=least)
    for row, hits in enumerate(found):
        count = int((expected[row] >= least).sum())
        assert [int(h.id) for h in hits] == ranking[row, 2 : min(count, 22)].tolist()
    assert ask("search", "c", vectors=base[:1], k=5, offset=1000) == [[]]
    (hit,) = ask("search", "c", vectors=base[7], k=1, with_vectors=True, with_payload=False)[0]
    assert hit.payload is None
    assert np.array_equal(hit.vector, base[int(hit.id)])


@pytest.mark.parametrize("metric", METRICS)
def test_a_range_holds_everything_within_the_score(ask: Ask, rng, metric: Metric) -> None:
    base = fill(ask, rng, metric=metric)
    expected = scores_of(base[:4], base, metric)
    least = float(np.sort(expected.ravel())[-600])  # more than the first step looks at
    found = ask("range_search", "c", vectors=base[:4], threshold=least - 1e-5)
    for row, within in enumerate(found):
        assert {int(h.id) for h in within.hits} == set(
            np.flatnonzero(expected[row] >= least - 1e-5)
        )
        assert not within.cut
        assert [h.score for h in within.hits] == sorted(
            (h.score for h in within.hits), reverse=True
        )
    (within,) = ask("range_search", "c", vectors=base[:1], threshold=-1e9, limit=99)
    assert (len(within.hits), within.cut) == (99, True)
    (within,) = ask("range_search", "c", vectors=base[:1], threshold=-1e9, limit=300)
    assert (len(within.hits), within.cut) == (300, False)
    few = ask("range_search", "c", vectors=base[0], threshold=-1e9, filter="n < 3")[0]
    assert {h.id for h in few.hits} == {"0", "1", "2"}


def test_groups_rank_as_their_best_hit(ask: Ask, rng) -> None:
    base = fill(ask, rng)
    ask("upsert", "c", ["none", "list"], vectors=base[:2], payloads=[None, {"of": [1]}])
    expected = scores_of(base[:3], base, "cosine")
    found = ask("search_groups", "c", vectors=base[:3], by="of.kind", k=4, size=3)
    for row, groups in enumerate(found):
        kinds: dict[str, list[int]] = {}
        for i in np.argsort(-expected[row], kind="stable"):
            kinds.setdefault("abcdefg"[i % 7], []).append(int(i))
        got = [(g.value, [int(h.id) for h in g.hits]) for g in groups]
        assert got == [(kind, ids[:3]) for kind, ids in list(kinds.items())[:4]]
    (groups,) = ask("search_groups", "c", vectors=base[0], by="n", k=2, with_payload=False)
    assert [type(g.value) for g in groups] == [int, int]
    assert groups[0].hits[0].payload is None
    assert ask("search_groups", "c", vectors=base[0], by="nothing", k=2) == [[]]
    for wrong in ("of kind", "a = 1", "a and b", ""):
        with pytest.raises(InvalidInput, match=r"key|filter"):
            ask("search_groups", "c", vectors=base[0], by=wrong)


@pytest.mark.parametrize("metric", METRICS)
def test_every_pair_within_the_score_is_found_once(ask: Ask, rng, metric: Metric) -> None:
    base = fill(ask, rng, count=600, metric=metric)
    expected = np.triu(scores_of(base, base, metric), 1)
    expected[np.tril_indices(600)] = -np.inf
    least = float(np.sort(expected[np.triu_indices(600, 1)])[-400]) - 1e-5
    pages = ask("duplicates", "c", least)
    found = [(int(p.first), int(p.second)) for page in pages for p in page.pairs]
    assert len(found) == len(set(found))
    first, second = np.nonzero(expected >= least)
    assert set(found) == set(zip(first.tolist(), second.tolist(), strict=True))
    assert all(page.exact and not page.cut for page in pages)
    filtered = ask("duplicates", "c", least, filter="n < 300")
    inside = {(int(p.first), int(p.second)) for page in filtered for p in page.pairs}
    assert inside == {(a, b) for a, b in found if a < 300 and b < 300}
    assert any(page.cut for page in ask("duplicates", "c", least, neighbours=1))


def test_pages_of_pairs_go_on_where_the_last_ended(stub, ask: Ask, rng) -> None:
    base = fill(ask, rng, count=200)
    seen: list[tuple[str, str]] = []
    after, sizes = 0, []
    while True:
        request = index_pb2.DuplicatesRequest(
            collection="c", score_threshold=0.5, after=after, limit=50
        )
        page = stub.Duplicates(request)
        seen += [(p.first, p.second) for p in page.pairs]
        sizes.append(len(page.pairs))
        after = page.next_after
        if not after:
            break
    assert len(sizes) > 3
    assert max(sizes) <= 150
    expected = np.triu(scores_of(base, base, "cosine") >= 0.5, 1)
    assert len(seen) == len(set(seen)) == expected.sum()


def test_scroll_meets_everything_even_beside_writes(ask: Ask, rng, stub) -> None:
    base = fill(ask, rng)
    records = ask("scroll", "c", with_vectors=True, page=7)
    assert [r.id for r in records] == [str(i) for i in range(300)]
    assert np.array_equal(np.array([r.vector for r in records]), base)
    assert records[5].payload == {"n": 5, "of": {"kind": "f"}}
    assert [r.id for r in ask("scroll", "c", filter="n >= 290", page=3)] == [
        str(i) for i in range(290, 300)
    ]
    page = stub.Scroll(index_pb2.ScrollRequest(collection="c", limit=100))
    assert (len(page.records), page.records[0].payload) == (100, b"")
    ask("upsert", "c", ["0", "250"], vectors=base[:2])
    ask("delete", "c", ["299"])
    ids = []
    while page.next_after:
        again = index_pb2.ScrollRequest(collection="c", after=page.next_after, limit=100)
        page = stub.Scroll(again)
        ids += [r.id for r in page.records]
    assert ids == [str(i) for i in range(100, 299) if i != 250] + ["0", "250"]


def test_a_sample_is_drawn_by_its_seed(ask: Ask, rng) -> None:
    fill(ask, rng)
    first, again, other = (ask("sample", "c", 20, seed=s) for s in (1, 1, 2))
    assert [r.id for r in first] == [r.id for r in again]
    assert [r.id for r in first] != [r.id for r in other]
    assert len({r.id for r in first}) == 20
    drawn = [int(r.id) for s in range(60) for r in ask("sample", "c", 20, seed=s)]
    # 1,200 draws over 300 items: 4 each, and each third of the items in 400 +- 5 sigma.
    assert all(abs(c - 400) < 82 for c in np.histogram(drawn, 3, (0, 300))[0])
    assert len(ask("sample", "c", 1000, filter="of.kind = 'a'")) == 43


def test_a_write_depends_on_what_its_writer_has_seen(ask: Ask, rng) -> None:
    base = fill(ask, rng, count=3)
    ask("upsert", "c", ["1"], vectors=base[:1])  # sequence 2
    seen = max(r.sequence for r in ask("get", "c", ["0", "1"]))
    assert seen == 2
    ask("upsert", "c", ["2"], vectors=base[:1])  # sequence 3: another id
    assert ask("upsert", "c", ["0", "1"], vectors=base[:2], if_sequence=seen) == 4
    with pytest.raises(SequenceConflict, match="written at 4") as caught:
        ask("upsert", "c", ["new", "1"], vectors=base[:2], if_sequence=seen)
    assert caught.value.sequence == 4
    assert ask("get", "c", ["new"]) == [None]
    assert ask("upsert", "c", ["new"], vectors=base[:1], if_sequence=0) == 5
    with pytest.raises(SequenceConflict, match="'new'"):
        ask("upsert", "c", ["new"], vectors=base[:1], if_sequence=0)
    ask("delete", "c", ["new"])
    assert ask("upsert", "c", ["new"], vectors=base[:1], if_sequence=0) == 7


def test_of_racing_writers_one_wins(address: str, rng) -> None:
    with sync.connect(address) as client:
        client.create_collection("c", dim=2)
        client.upsert("c", ["a"], vectors=[1, 0], payloads=[{"n": 0}])

        def add_one(_: int) -> None:
            while True:
                (record,) = client.get("c", ["a"])
                after = [{"n": record.payload["n"] + 1}]
                try:
                    client.upsert(
                        "c", ["a"], vectors=[1, 0], payloads=after, if_sequence=record.sequence
                    )
                except SequenceConflict:
                    continue
                return

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(add_one, range(40)))
        assert client.get("c", ["a"])[0].payload == {"n": 40}


def test_a_stream_of_writes_is_committed_in_order(ask: Ask, rng) -> None:
    ask("create_collection", "c", dim=8)
    base = rng.standard_normal((5000, 8)).astype(np.float32)
    batches = [
        Batch([f"{i % 4}-{j}" for j in range(100)], base[i * 100 : i * 100 + 100])
        for i in range(50)
    ]
    sequences = ask("upsert_stream", "c", iter(batches))
    assert sequences == list(range(1, 51))
    records = ask("get", "c", batches[49].ids)
    assert np.array_equal(np.array([r.vector for r in records]), batches[49].vectors)
    assert ask("describe", "c").count == 400
    assert ask("upsert_stream", "c", []) == []


def test_a_bad_batch_ends_the_stream_of_the_client_and_no_other_is_lost(ask: Ask, rng) -> None:
    ask("create_collection", "c", dim=8)
    good = Batch(["a"], rng.standard_normal((1, 8)))
    bad = Batch(["b"], np.zeros((1, 8)))
    with pytest.raises(InvalidInput, match="zeros in row 0"):
        ask("upsert_stream", "c", [good, bad])
    assert [r is not None for r in ask("get", "c", ["a", "b"])] == [True, False]
    with pytest.raises(NotFound, match="'d'"):
        ask("upsert_stream", "d", [good])


def test_a_stream_answers_each_request_by_its_id(stub, ask: Ask, rng) -> None:
    base = fill(ask, rng)

    def requests() -> Iterator[index_pb2.SearchRequest]:
        for i in range(40):
            yield index_pb2.SearchRequest(
                collection="c" if i % 4 else "none",
                vectors=encode_tensor(base[i : i + 1]),
                k=1,
                request_id=f"r{i}",
            )

    answers = {a.request_id: a for a in stub.SearchStream(requests())}
    assert len(answers) == 40
    for i in range(40):
        answer = answers[f"r{i}"]
        if i % 4:
            assert answer.results[0].ids[0] == str(i)
        else:
            assert answer.status.code == grpc.StatusCode.NOT_FOUND.value[0]
    writes = [
        index_pb2.UpsertRequest(
            collection="c", ids=[str(i)], vectors=encode_tensor(base[:1]), request_id=f"w{i}"
        )
        for i in ("x", "", "z")
    ]
    replies = list(stub.UpsertStream(iter(writes)))
    assert [r.request_id for r in replies] == ["wx", "w", "wz"]
    assert [r.HasField("status") for r in replies] == [False, True, False]
    assert replies[2].sequence == replies[0].sequence + 1


def test_a_stream_of_searches_gives_what_searches_give(ask: Ask, rng) -> None:
    base = fill(ask, rng)
    batches = [base[i : i + 9] for i in range(0, 300, 9)]
    streamed = ask("search_stream", "c", iter(batches), k=3, filter="n > 10")
    assert [hits for part in streamed for hits in part] == ask(
        "search", "c", vectors=base, k=3, filter="n > 10"
    )


def test_parameters_travel_with_the_request(ask: Ask, rng) -> None:
    base = fill(ask, rng)
    for params in (SearchParams(exact=True), SearchParams(recall_target=0.9)):
        assert ask("search", "c", vectors=base[:1], k=1, params=params)[0][0].id == "0"
    for params in (SearchParams(nprobe=0), SearchParams(ef=0), SearchParams(recall_target=1.5)):
        with pytest.raises(InvalidInput, match=r"nprobe|ef|recall"):
            ask("search", "c", vectors=base[:1], params=params)


def test_verify_and_kinds(ask: Ask, rng) -> None:
    fill(ask, rng)
    found = ask("verify", "c")
    assert (found.vectors, found.sequence, found.problems) == (300, 1, ())
    made = ask("create_collection", "small", dim=4, kind="sq8", storage="float16")
    assert (made.kind, made.storage) == ("sq8", "float16")
    for wrong in ({"kind": "magic"}, {"storage": "float8"}):
        with pytest.raises(InvalidInput, match="expected"):
            ask("create_collection", "d", dim=4, **wrong)


def test_payloads_are_json_of_any_kind(ask: Ask) -> None:
    payload = {"big": 2**60, "text": 'ü"\\\n', "none": None, "list": [1.5, {"a": True}]}
    ask("create_collection", "c", dim=2)
    ask("upsert", "c", ["a"], vectors=[1, 2], payloads=[payload])
    (record,) = ask("scroll", "c")
    assert json.dumps(record.payload) == json.dumps(payload)


def test_arguments_that_no_message_holds_are_refused_in_our_words(ask: Ask) -> None:
    ask("create_collection", "c", dim=2)
    deep: dict[str, object] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    one = {"vectors": [1, 2]}
    for method, arguments, said in (
        ("create_collection", {"dim": -1}, "dimension"),
        ("create_collection", {"dim": 2**40}, "dimension"),
        ("create_collection", {"dim": 3.5}, "dimension"),
        ("scroll", {"page": -1}, "page of 1"),
        ("search", {"vectors": [[1, 2], [3]]}, "vectors"),
        ("search", {**one, "threshold": "x"}, "threshold"),
        ("range_search", {**one, "threshold": None}, "threshold"),
        ("duplicates", {"threshold": None}, "threshold"),
        ("upsert", {"ids": ["a"], **one, "payloads": [deep]}, "payload 0"),
        ("upsert_stream", {"batches": [(["a"], [[1, 2]])]}, "embedkit.Batch"),
    ):
        with pytest.raises(InvalidInput, match=said):
            ask(method, "d" if method == "create_collection" else "c", **arguments)
    while deep:  # taken apart by hand: Python would recurse as deep to free it
        deep = deep["a"]  # type: ignore[assignment]
    assert ask("describe", "c").count == 0
