"""What calls of collections refuse, and limits of answers and time, over real gRPC."""

from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2

from embedkit.client import sync
from embedkit.errors import (
    MessageTooLarge,
)
from embedkit.wire.codec import encode_tensor
from embedkit.wire.proto import index_pb2
from tests.client.index.ask import Ask


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


def test_answers_stay_under_the_limit_of_a_message(one: Ask, stub, rng) -> None:
    """1,200 payloads of 30,000 bytes are more than 32 MiB."""
    one("create_collection", "c", dim=2)
    payloads = [{"text": "x" * 30_000, "n": n} for n in range(1200)]
    base = rng.standard_normal((1200, 2))
    one("upsert", "c", [str(i) for i in range(1200)], vectors=base, payloads=payloads)
    with pytest.raises(MessageTooLarge, match="without payloads"):
        one("search", "c", vectors=base[0], k=1200)
    with pytest.raises(MessageTooLarge, match="at most"):
        one("search", "c", vectors=np.tile(base[:1], (100, 1)), k=20)
    ids = [str(i) for i in range(1200)]
    with pytest.raises(grpc.RpcError, match="ids at a time"):
        stub.Get(index_pb2.GetRequest(collection="c", ids=ids))
    assert [r.payload["n"] for r in one("get", "c", ids)] == list(range(1200))
    assert len(one("search", "c", vectors=base[0], k=1200, with_payload=False)[0]) == 1200
    assert len(one("scroll", "c", page=1200)) == 1200


def test_records_too_large_for_one_answer_come_in_several(ask: Ask, rng) -> None:
    """4,096 vectors of 2,048 dimensions are 32 MiB, and with their ids more."""
    ask("create_collection", "c", dim=2048, metric="inner_product")
    vectors = rng.integers(0, 9, (4096, 2048), dtype=np.uint8)
    ids = [f"id-{i}" for i in range(4096)]
    for start in range(0, 4096, 256):  # this server takes messages of 4 MiB
        part = slice(start, start + 256)
        ask("upsert", "c", ids[part], vectors=vectors[part])
    found = ask("get", "c", [*ids[::-1], "nobody"])
    assert found[-1] is None
    assert [record.id for record in found[:-1]] == ids[::-1]
    assert np.array_equal(found[0].vector, vectors[-1])


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
