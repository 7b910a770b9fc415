"""The failure table's rows on collections, over a real channel."""

import contextlib
import resource

import grpc
import numpy as np
import pytest

from embedkit.serve.server import running_server
from embedkit.wire.codec import encode_tensor
from embedkit.wire.proto import index_pb2, index_pb2_grpc, model_pb2, model_pb2_grpc
from tests.serve.statuses import read, refusal, status_of

MISSING = ("NOT_FOUND", "NOT_FOUND", None)


@pytest.fixture
def opened(tiny_models, tmp_path, channel):
    """A channel to a server."""
    with running_server(models=tiny_models, data_dir=tmp_path / "var") as address:
        yield channel(address)


def small(count):
    return encode_tensor(np.eye(count, 8, dtype=np.float32))


def one_image():
    return np.zeros((1, 4, 4, 3), np.uint8)


@contextlib.contextmanager
def full_disk(folder):
    """No file of this process may grow beyond the largest in a folder."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    largest = max(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest + 4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_unknown_models_and_collections(opened):
    index = index_pb2_grpc.IndexServiceStub(opened)
    models = model_pb2_grpc.ModelServiceStub(opened)
    assert refusal(models.GetModel, model_pb2.GetModelRequest(name="other")) == MISSING
    assert refusal(index.Describe, index_pb2.DescribeRequest(name="c")) == MISSING
    search = index_pb2.SearchRequest(collection="c", k=1, pixels=encode_tensor(one_image()))
    assert refusal(index.Search, search) == MISSING


def test_a_collection_filled_by_another_model(opened):
    index = index_pb2_grpc.IndexServiceStub(opened)
    index.CreateCollection(index_pb2.CreateCollectionRequest(name="c", model="tiny"))
    vectors = encode_tensor(np.eye(1, 8, dtype=np.float32))
    search = index_pb2.SearchRequest(
        collection="c", k=1, vectors=vectors, model_digest="sha256:other"
    )
    assert refusal(index.Search, search) == ("FAILED_PRECONDITION", "MODEL_MISMATCH", None)


def test_a_full_disk_refuses_writes_with_the_reason_and_reads_go_on(opened, tmp_path):
    index = index_pb2_grpc.IndexServiceStub(opened)
    index.CreateCollection(index_pb2.CreateCollectionRequest(name="c", dim=8))
    vectors = encode_tensor(np.ones((500, 8), np.float32))
    ids = [f"id-{i}" for i in range(500)]
    index.Upsert(index_pb2.UpsertRequest(collection="c", ids=["a"], vectors=small(1)))
    upsert = index_pb2.UpsertRequest(collection="c", ids=ids, vectors=vectors)
    with full_disk(tmp_path / "var"):
        with pytest.raises(grpc.RpcError) as caught:
            index.Upsert(upsert)
        assert read(status_of(caught.value)) == ("UNAVAILABLE", "UNAVAILABLE", 0.5)
        assert "cannot write" in caught.value.details()
        found = index.Search(index_pb2.SearchRequest(collection="c", k=1, vectors=small(1)))
        assert found.results[0].ids[0] == "a"
    index.Upsert(upsert)
    assert index.Describe(index_pb2.DescribeRequest(name="c")).count == 501
