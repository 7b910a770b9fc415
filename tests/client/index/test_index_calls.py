"""Collections through both clients and real gRPC, against brute force in numpy."""

import asyncio
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2

from embedkit.client import aio, sync
from embedkit.client.items import Batch
from embedkit.errors import (
    InvalidInput,
    MessageTooLarge,
    NotFound,
    SequenceConflict,
)
from embedkit.types import Metric, SearchParams
from embedkit.wire.codec import encode_tensor
from embedkit.wire.proto import index_pb2
from embedkit.wire.proto.index_pb2_grpc import IndexServiceStub

Ask = Callable[..., Any]
METRICS: tuple[Metric, ...] = ("cosine", "inner_product", "l2")


@pytest.fixture(params=["sync", "aio"])
def ask(request: pytest.FixtureRequest, address: str) -> Iterator[Ask]:
    """Call a method of either client; iterators come back as lists."""
    if request.param == "sync":
        with sync.connect(address) as client:
            yield partial(called, client)
        return
    with asyncio.Runner() as runner:

        async def make() -> aio.Client:
            return aio.connect(address)

        async def act(method: str, *a: Any, **k: Any) -> Any:
            found = getattr(other, method)(*a, **k)
            if hasattr(found, "__aiter__"):
                return [one async for one in found]
            return await found

        other = runner.run(make())
        yield lambda method, *a, **k: runner.run(act(method, *a, **k))
        runner.run(other.close())


def called(client: sync.Client, method: str, *a: Any, **k: Any) -> Any:
    found = getattr(client, method)(*a, **k)
    return list(found) if isinstance(found, Iterator) else found


@pytest.fixture
def one(address: str) -> Iterator[Ask]:
    """The synchronous client alone, for what takes long."""
    with sync.connect(address) as client:
        yield partial(called, client)


@pytest.fixture
def stub(address: str) -> Iterator[IndexServiceStub]:
    with grpc.insecure_channel(address) as channel:
        yield IndexServiceStub(channel)


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
            assert answer.results[0].hits[0].id == str(i)
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


def reason(failure: grpc.RpcError) -> str:
    """Of the ``ErrorInfo`` beside a status."""
    details = dict(failure.trailing_metadata())["grpc-status-details-bin"]
    for detail in status_pb2.Status.FromString(details).details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return info.reason
    return ""


NAN, INF = [np.nan] * 8, [np.inf] * 8


@pytest.mark.parametrize(
    ("method", "values", "code", "cause", "words"),
    [
        ("Search", {"vector": [1] * 7}, "INVALID_ARGUMENT", "INVALID_INPUT", "(n, 8)"),
        ("Search", {"vector": NAN}, "INVALID_ARGUMENT", "INVALID_INPUT", "NaN"),
        ("Search", {"vector": INF}, "INVALID_ARGUMENT", "INVALID_INPUT", "infinity"),
        ("Search", {"vector": [0] * 8}, "INVALID_ARGUMENT", "INVALID_INPUT", "zeros"),
        ("Search", {"k": 0}, "INVALID_ARGUMENT", "INVALID_INPUT", "k from 1"),
        ("Search", {"k": 0, "offset": 3}, "INVALID_ARGUMENT", "INVALID_INPUT", "k from 1"),
        ("Search", {"k": 10_001}, "INVALID_ARGUMENT", "INVALID_INPUT", "k from 1"),
        ("Search", {"k": 1, "offset": 2**31}, "INVALID_ARGUMENT", "INVALID_INPUT", "k from 1"),
        ("Search", {"score_threshold": np.nan}, "INVALID_ARGUMENT", "INVALID_INPUT", "number"),
        ("Search", {"group_size": 2}, "INVALID_ARGUMENT", "INVALID_INPUT", "group_by"),
        ("Search", {"filter": "a b"}, "INVALID_ARGUMENT", "INVALID_INPUT", "position 3"),
        ("Search", {"collection": "d"}, "NOT_FOUND", "NOT_FOUND", "'d'"),
        ("RangeSearch", {"limit": 10_000}, "INVALID_ARGUMENT", "INVALID_INPUT", "limit"),
        ("RangeSearch", {"vector": NAN}, "INVALID_ARGUMENT", "INVALID_INPUT", "NaN"),
        ("RangeSearch", {"collection": "d"}, "NOT_FOUND", "NOT_FOUND", "'d'"),
        ("Upsert", {"vector": [1] * 9}, "INVALID_ARGUMENT", "INVALID_INPUT", "(n, 8)"),
        ("Upsert", {"vector": NAN}, "INVALID_ARGUMENT", "INVALID_INPUT", "NaN"),
        ("Upsert", {"vector": [0] * 8}, "INVALID_ARGUMENT", "INVALID_INPUT", "zeros"),
        ("Upsert", {"payloads": [b"[]"]}, "INVALID_ARGUMENT", "INVALID_INPUT", "JSON object"),
        (
            "Upsert",
            {"payloads": [b'{"a":"' + b"x" * 70_000 + b'"}']},
            "INVALID_ARGUMENT",
            "INVALID_INPUT",
            "65536 bytes",
        ),
        ("Upsert", {"if_sequence": 0}, "ABORTED", "SEQUENCE_CONFLICT", "'0'"),
        ("Duplicates", {"limit": 1 << 20}, "INVALID_ARGUMENT", "INVALID_INPUT", "limit"),
        ("Duplicates", {"neighbours": 1001}, "INVALID_ARGUMENT", "INVALID_INPUT", "neighbours"),
        ("Duplicates", {"after": 2**63}, "INVALID_ARGUMENT", "INVALID_INPUT", "slot"),
        ("Sample", {}, "INVALID_ARGUMENT", "INVALID_INPUT", "count from 1"),
        ("Scroll", {"limit": 1 << 20}, "INVALID_ARGUMENT", "INVALID_INPUT", "limit"),
        ("Scroll", {"collection": "d"}, "NOT_FOUND", "NOT_FOUND", "'d'"),
    ],
)
def test_what_is_refused_says_why(
    address: str, stub, rng, method: str, values: dict, code: str, cause: str, words: str
) -> None:
    with sync.connect(address) as client:
        client.create_collection("c", dim=8)
        client.upsert("c", ["0"], vectors=[1] * 8)
    kind = getattr(index_pb2, f"{method}Request")
    fields: dict[str, Any] = {"collection": "c"}
    if method in ("Search", "RangeSearch", "Upsert"):
        vector = np.array([values.pop("vector", [1] * 8)], np.float32)
        fields["vectors"] = encode_tensor(vector)
    if method == "Search":
        fields["k"] = 1
    if method == "Upsert":
        fields["ids"] = ["0"]
    with pytest.raises(grpc.RpcError) as caught:
        getattr(stub, method)(kind(**{**fields, **values}))
    assert caught.value.code().name == code
    assert reason(caught.value) == cause
    assert words in caught.value.details()


def test_answers_stay_under_the_limit_of_a_message(one: Ask, rng) -> None:
    """1,200 payloads of 30,000 bytes are more than 32 MiB."""
    one("create_collection", "c", dim=2)
    payloads = [{"text": "x" * 30_000, "n": n} for n in range(1200)]
    base = rng.standard_normal((1200, 2))
    one("upsert", "c", [str(i) for i in range(1200)], vectors=base, payloads=payloads)
    with pytest.raises(MessageTooLarge, match="without payloads"):
        one("search", "c", vectors=base[0], k=1200)
    with pytest.raises(MessageTooLarge, match="at most"):
        one("search", "c", vectors=np.tile(base[:1], (100, 1)), k=20)
    with pytest.raises(MessageTooLarge, match="ids"):
        one("get", "c", [str(i) for i in range(1200)])
    assert len(one("search", "c", vectors=base[0], k=1200, with_payload=False)[0]) == 1200
    assert len(one("scroll", "c", page=1200)) == 1200


def test_a_filter_stops_at_the_deadline(one: Ask, stub, rng) -> None:
    one("create_collection", "c", dim=2)
    payloads = [{"text": "\\" + "a" * 200, "n": n} for n in range(20_000)]
    base = rng.standard_normal((20_000, 2))
    one("upsert", "c", [str(i) for i in range(20_000)], vectors=base, payloads=payloads)
    # A backslash in the payload makes every row be decided in Python: about a second in all.
    slow = " or ".join(f"text like '%a%a%b{i}'" for i in range(10))
    search = index_pb2.SearchRequest(
        collection="c", k=1, filter=slow, vectors=encode_tensor(np.ones((1, 2), np.float32))
    )
    delete = index_pb2.DeleteRequest(collection="c", filter=f"not ({slow})")
    for call, request in ((stub.Search, search), (stub.Delete, delete)):
        with pytest.raises(grpc.RpcError) as caught:
            call(request, timeout=0.05)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert one("describe", "c").count == 20_000


def test_payloads_are_json_of_any_kind(ask: Ask) -> None:
    payload = {"big": 2**60, "text": 'ü"\\\n', "none": None, "list": [1.5, {"a": True}]}
    ask("create_collection", "c", dim=2)
    ask("upsert", "c", ["a"], vectors=[1, 2], payloads=[payload])
    (record,) = ask("scroll", "c")
    assert json.dumps(record.payload) == json.dumps(payload)
