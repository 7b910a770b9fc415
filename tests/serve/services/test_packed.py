"""Replies written from arrays are, byte for byte, what protobuf writes of the same hits."""

from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from embedkit.retrieve.names import HitTable, Names
from embedkit.retrieve.patience import Patience
from embedkit.retrieve.stores.local import LocalStore
from embedkit.serve.services.index.messages import hits
from embedkit.serve.services.index.packed import written_results
from embedkit.serve.services.index.parts import Parts
from embedkit.serve.services.index.search import SearchCalls
from embedkit.types import Collection
from embedkit.wire.codec import encode_tensor
from embedkit.wire.proto import index_pb2


def table(rng: np.random.Generator, shape: tuple[int, int], longest: int) -> HitTable:
    ids = [f"{'ä' * int(rng.integers(0, longest // 2 - 1))}{i}" for i in range(50)]
    ids[3] = ""
    ids[4] = "x" * longest
    names = Names().added(np.arange(5, 55), ids)
    slots = rng.integers(5, 55, shape)
    slots[0, 0] = 9
    return HitTable(names, slots, rng.standard_normal(shape).astype(np.float32))


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (2, 31), (4, 32), (64, 10), (2, 5000)])
def test_bytes_are_those_of_protobuf(rng: np.random.Generator, shape: tuple[int, int]) -> None:
    found = table(rng, shape, longest=127)
    message = index_pb2.SearchResponse(results=map(hits, found))
    assert written_results(found, [len(found)]) == [message.SerializeToString()]


def test_replies_share_what_was_written(rng: np.random.Generator) -> None:
    found = table(rng, (6, 7), longest=127)
    rows = list(found)
    parts = [rows[:1], rows[1:5], [], rows[5:]]
    expected = [
        index_pb2.SearchResponse(results=map(hits, part)).SerializeToString() for part in parts
    ]
    assert written_results(found, [1, 4, 0, 1]) == expected


def test_longer_ids_are_left_to_protobuf(rng: np.random.Generator) -> None:
    assert written_results(table(rng, (3, 7), longest=128), [3]) is None


def test_a_table_is_a_sequence_of_hits(rng: np.random.Generator) -> None:
    found = table(rng, (3, 60), longest=20)
    rows = list(found)
    assert len(found) == len(rows) == 3
    pairs = (0, found[0], found[-3]), (2, found[2], found[1:][-1])
    for row, same, last in pairs:
        assert list(rows[row].ids) == list(same.ids) == list(last.ids)
        assert np.array_equal(rows[row].scores, found.scores[row])
    assert found[0].ids[0] == "x" * 20
    with pytest.raises(IndexError):
        found[3]


@pytest.mark.parametrize("longest", [9, 300])
def test_many_queries_are_answered_as_each_by_itself(
    tmp_path: Path, rng: np.random.Generator, longest: int
) -> None:
    store = LocalStore(tmp_path)
    store.create(Collection("c", 4))
    vectors = rng.standard_normal((40, 4)).astype(np.float32)
    store.upsert("c", [f"{'ö' * (i % longest // 2)}{i}" for i in range(40)], vectors)
    calls = SearchCalls(Parts(store, no_images, answer_bytes=1 << 20))

    def found(queries: np.ndarray) -> index_pb2.SearchResponse:
        request = index_pb2.SearchRequest(
            collection="c", k=5, vectors=encode_tensor(queries), request_id="r"
        )
        reply = calls.found(request, Patience())
        return index_pb2.SearchResponse.FromString(reply.SerializeToString())

    whole = found(vectors)
    assert (whole.request_id, whole.exact, whole.sequence) == ("r", True, 1)
    for row, hits_of_one in enumerate(whole.results):
        assert hits_of_one == found(vectors[row : row + 1]).results[0]
    store.close()


def no_images(model: str, images: object, timeout_s: float | None, **_: object) -> NoReturn:
    raise AssertionError("nothing is embedded here")
