"""IndexService through a real server and bare stubs: calls, failures, concurrency."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from embedkit.errors import (
    AlreadyExists,
    BadImage,
    EmbedkitError,
    InvalidInput,
    MessageTooLarge,
    ModelMismatch,
    NotFound,
)
from embedkit.serve.server import running_server
from embedkit.wire.codec import decode_tensor, encode_images, encode_tensor
from embedkit.wire.proto import index_pb2, tensor_pb2
from embedkit.wire.proto.index_pb2_grpc import IndexServiceStub
from embedkit.wire.status import from_rpc_error

DIM = 8


@pytest.fixture
def index(
    tiny_models: Path, tmp_path: Path, channel: Callable[[str], grpc.Channel]
) -> Iterator[IndexServiceStub]:
    with running_server(models=tiny_models, data_dir=tmp_path / "var") as address:
        yield IndexServiceStub(channel(address))


def vectors(rng: np.random.Generator, count: int, dim: int = DIM) -> np.ndarray:
    return rng.standard_normal((count, dim)).astype(np.float32)


def create(index: IndexServiceStub, **values: Any) -> index_pb2.Collection:
    return index.CreateCollection(
        index_pb2.CreateCollectionRequest(**{"name": "c", "dim": DIM, **values})
    )


def fails_with(kind: type[EmbedkitError], match: str, call, request) -> None:
    """The call ends with the status, the reason and the words of one error class."""
    with pytest.raises(grpc.RpcError) as caught:
        call(request)
    error = from_rpc_error(caught.value)
    assert type(error) is kind, error
    assert match in str(error)
    assert caught.value.code().name == kind.status


def test_the_life_of_a_collection(index: IndexServiceStub, rng: np.random.Generator) -> None:
    made = create(index, metric=index_pb2.L2)
    assert (made.name, made.dim, made.metric, made.kind) == ("c", DIM, index_pb2.L2, "auto")
    base, payloads = vectors(rng, 3), [b'{"n": 1}', b"", b'{"big": 9007199254740993}']
    done = index.Upsert(
        index_pb2.UpsertRequest(
            collection="c",
            ids=["a", "b", "c"],
            vectors=encode_tensor(base),
            payloads=payloads,
            model_digest="sha256:x",
        )
    )
    assert (done.sequence, done.model_digest) == (1, "sha256:x")
    got = index.Get(
        index_pb2.GetRequest(collection="c", ids=["c", "nobody", "a"], with_vectors=True)
    ).records
    assert [r.found for r in got] == [True, False, True]
    assert [r.id for r in got] == ["c", "nobody", "a"]
    assert got[0].vector.data == base[2].tobytes()
    assert (got[0].payload, got[0].sequence) == (payloads[2], 1)
    found = index.Search(
        index_pb2.SearchRequest(
            collection="c",
            vectors=encode_tensor(base[:2]),
            k=2,
            with_payload=True,
            with_vectors=True,
        )
    )
    assert found.exact
    assert found.model_digest == "sha256:x"
    assert [hits.ids[0] for hits in found.results] == ["a", "b"]
    first = found.results[0]
    assert (first.scores[0], first.payloads[0]) == (0.0, payloads[0])
    read = decode_tensor(first.vectors, axes="n d", dtypes=("float32",))
    assert np.array_equal(read[0], base[0])
    plain = index.Search(
        index_pb2.SearchRequest(collection="c", vectors=encode_tensor(base[:1]), k=1)
    ).results[0]
    assert not plain.payloads
    assert not plain.HasField("vectors")
    gone = index.Delete(index_pb2.DeleteRequest(collection="c", ids=["a", "nobody"]))
    assert (gone.deleted, gone.sequence) == (1, 2)
    assert index.Describe(index_pb2.DescribeRequest(name="c")).count == 2
    listed = index.ListCollections(index_pb2.ListCollectionsRequest()).collections
    assert [(c.name, c.count, c.sequence) for c in listed] == [("c", 2, 2)]
    matching = index_pb2.DeleteRequest(collection="c", filter="not exists nothing")
    gone = index.Delete(matching)
    assert (gone.deleted, gone.sequence) == (2, 3)
    index.Compact(index_pb2.CompactRequest(name="c"))
    index.DropCollection(index_pb2.DropCollectionRequest(name="c"))
    assert not index.ListCollections(index_pb2.ListCollectionsRequest()).collections


def test_images_are_embedded_by_the_collections_model(
    index: IndexServiceStub, images: np.ndarray, reference: Callable[..., np.ndarray]
) -> None:
    made = create(index, dim=0, model="tiny")
    assert (made.dim, made.model) == (DIM, "tiny")
    assert made.model_digest.startswith("sha256:")
    ids = [str(i) for i in range(len(images))]
    done = index.Upsert(
        index_pb2.UpsertRequest(collection="c", ids=ids, pixels=encode_images(images))
    )
    assert done.model_digest == made.model_digest
    records = index.Get(
        index_pb2.GetRequest(collection="c", ids=ids, with_vectors=True)
    ).records
    stored = np.array([decode_tensor(r.vector, axes="d", dtypes=("float32",)) for r in records])
    expected = reference(images)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(stored, expected, atol=1e-6)
    found = index.Search(
        index_pb2.SearchRequest(collection="c", pixels=encode_images(images[3:]), k=1)
    )
    assert [h.ids[0] for h in found.results] == ["3", "4"]
    assert found.model_digest == made.model_digest


def test_a_collection_without_a_model_takes_the_only_one(
    index: IndexServiceStub, images: np.ndarray
) -> None:
    create(index)
    done = index.Upsert(
        index_pb2.UpsertRequest(collection="c", ids=["a"], pixels=encode_images(images[:1]))
    )
    assert done.model_digest.startswith("sha256:")
    assert index.Describe(index_pb2.DescribeRequest(name="c")).model_digest == done.model_digest


def test_another_models_vectors_are_refused(
    index: IndexServiceStub, images: np.ndarray, rng: np.random.Generator
) -> None:
    create(index, dim=0, model="tiny")
    theirs: dict[str, Any] = {
        "vectors": encode_tensor(vectors(rng, 1)),
        "model_digest": "sha256:other",
    }
    pixels: dict[str, Any] = {
        "pixels": encode_images(images[:1]),
        "model_digest": "sha256:other",
    }
    for source in (theirs, pixels):
        request = index_pb2.UpsertRequest(collection="c", ids=["a"], **source)
        fails_with(ModelMismatch, "sha256:other", index.Upsert, request)
        search = index_pb2.SearchRequest(collection="c", k=1, **source)
        fails_with(ModelMismatch, "sha256:other", index.Search, search)


def test_a_collection_filled_by_an_older_model_is_refused_after_a_restart(
    tmp_path: Path,
    write_tiny: Callable,
    images: np.ndarray,
    channel: Callable[[str], grpc.Channel],
) -> None:
    write_tiny(tmp_path / "models", seed=0)
    places: dict[str, Any] = {"models": tmp_path / "models", "data_dir": tmp_path / "var"}
    upsert = index_pb2.UpsertRequest(
        collection="c", ids=["a"], pixels=encode_images(images[:1])
    )
    search = index_pb2.SearchRequest(collection="c", k=1, pixels=encode_images(images[:1]))
    with running_server(**places) as address:
        index = IndexServiceStub(channel(address))
        create(index, dim=0, model="tiny")
        index.Upsert(upsert)
    write_tiny(tmp_path / "models", version=2, seed=5)
    with running_server(**places) as address:
        index = IndexServiceStub(channel(address))
        fails_with(ModelMismatch, "sha256:", index.Upsert, upsert)
        fails_with(ModelMismatch, "sha256:", index.Search, search)
        found = index.Get(index_pb2.GetRequest(collection="c", ids=["a"])).records
        assert found[0].found


def test_requests_that_are_refused(
    index: IndexServiceStub, images: np.ndarray, rng: np.random.Generator
) -> None:
    fails_with(InvalidInput, "dimension", create_call(index), {"dim": 0})
    fails_with(InvalidInput, "metric", create_call(index), {"metric": 9})
    fails_with(InvalidInput, "auto", create_call(index), {"kind": "magic"})
    fails_with(NotFound, "tiny", create_call(index), {"model": "none"})
    fails_with(InvalidInput, "dimension 8", create_call(index), {"model": "tiny", "dim": 7})
    create(index)
    fails_with(AlreadyExists, "'c'", create_call(index), {})

    one = encode_tensor(vectors(rng, 1))
    for kind, words, values in (
        (NotFound, "'d'", {"collection": "d", "vectors": one}),
        (InvalidInput, "none of them", {}),
        (InvalidInput, "(n, 8)", {"vectors": encode_tensor(vectors(rng, 1, 7))}),
        (InvalidInput, "float32", {"vectors": encode_tensor(np.ones((1, 8), np.uint8))}),
        (InvalidInput, "bytes", {"vectors": broken_tensor()}),
        (BadImage, "", {"encoded": tensor_pb2.EncodedImages(data=[b"not an image"])}),
    ):
        upsert: dict[str, Any] = {"collection": "c", "ids": ["a"], **values}
        fails_with(kind, words, index.Upsert, index_pb2.UpsertRequest(**upsert))
        search: dict[str, Any] = {"collection": "c", "k": 1, **values}
        fails_with(kind, words, index.Search, index_pb2.SearchRequest(**search))

    def search_with(**values: Any) -> index_pb2.SearchRequest:
        return index_pb2.SearchRequest(**{"collection": "c", "vectors": one, "k": 1, **values})

    fails_with(InvalidInput, "k from 1", index.Search, search_with(k=0))
    fails_with(
        InvalidInput, "position 2 of the filter", index.Search, search_with(filter="a==1")
    )
    both = index_pb2.DeleteRequest(collection="c", ids=["a"], filter="a = 1")
    fails_with(InvalidInput, "ids or a filter", index.Delete, both)
    half = index_pb2.DeleteRequest(collection="c", filter="a =")
    fails_with(InvalidInput, "position 4 of the filter, got the end", index.Delete, half)
    pixels = encode_images(images)
    wrong = index_pb2.UpsertRequest(collection="c", ids=["a"], pixels=pixels)
    fails_with(InvalidInput, "one image for each of 1", index.Upsert, wrong)
    many = index_pb2.GetRequest(collection="c", ids=[str(i) for i in range(140_000)])
    fails_with(MessageTooLarge, "131072", index.Get, many)
    assert index.Describe(index_pb2.DescribeRequest(name="c")).sequence == 0


def create_call(index: IndexServiceStub) -> Callable[[dict], index_pb2.Collection]:
    return lambda values: create(index, **values)


def broken_tensor() -> tensor_pb2.Tensor:
    return tensor_pb2.Tensor(data=b"123", dtype=tensor_pb2.FLOAT32, shape=[1, 8])


def test_searches_beside_writes_see_whole_requests(
    index: IndexServiceStub, rng: np.random.Generator
) -> None:
    """Every write gives all twenty ids a new generation; no answer mixes two."""
    create(index, metric=index_pb2.L2)
    ids = [f"id-{i}" for i in range(20)]
    stop, mixed, seen = threading.Event(), [], set()

    def write(generation: int) -> None:
        base = np.full((20, DIM), generation, np.float32) + np.eye(20, DIM, dtype=np.float32)
        payload = json.dumps({"generation": generation}).encode()
        index.Upsert(
            index_pb2.UpsertRequest(
                collection="c", ids=ids, vectors=encode_tensor(base), payloads=[payload] * 20
            )
        )

    def search() -> None:
        request = index_pb2.SearchRequest(
            collection="c",
            k=50,
            with_payload=True,
            with_vectors=True,
            vectors=encode_tensor(np.zeros((1, DIM), np.float32)),
        )
        while not stop.is_set():
            hits = index.Search(request).results[0]
            rows = np.frombuffer(hits.vectors.data, "<f4").reshape(-1, DIM)
            generations = {json.loads(p)["generation"] for p in hits.payloads}
            held = {round(float(row.min())) for row in rows}
            scores = [-float((row.astype(np.float64) ** 2).sum()) for row in rows]
            is_whole = len(rows) == 20 and generations == held and len(held) == 1
            if not is_whole or not np.allclose(list(hits.scores), scores, rtol=1e-6):
                mixed.append((len(rows), generations, held))
            seen.update(generations)

    write(1)
    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    end, generation = time.monotonic() + 2, 1
    while time.monotonic() < end:
        generation += 1
        write(generation)
    stop.set()
    for thread in threads:
        thread.join()
    assert mixed == []
    assert len(seen) > 10
