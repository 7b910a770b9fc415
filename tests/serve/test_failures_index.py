"""The failure table's rows on collections, over a real channel."""

import contextlib
import io
import resource

import grpc
import numpy as np
import pytest
from PIL import Image

from embedkit.serve.config import ServerConfig
from embedkit.serve.server import Server, running_server
from embedkit.wire.codec import encode_tensor
from embedkit.wire.proto import (
    embedding_pb2,
    embedding_pb2_grpc,
    index_pb2,
    index_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
)
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
    return np.ones((1, 4, 4, 3), np.uint8)


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


def search_of(images):
    return index_pb2.SearchRequest(collection="c", k=1, pixels=encode_tensor(images))


def upsert_of(images):
    ids = [str(i) for i in range(len(images))]
    return index_pb2.UpsertRequest(collection="c", ids=ids, pixels=encode_tensor(images))


def png():
    buffer = io.BytesIO()
    Image.fromarray(one_image()[0]).save(buffer, "PNG")
    return buffer.getvalue()


def begin(index, method, images):
    """Send images to a collection by one of the calls that take some."""
    request = (search_of if method.startswith("Search") else upsert_of)(images)
    call = getattr(index, method)
    return call(iter([request])) if method.endswith("Stream") else call.future(request)


@pytest.fixture
def served(tiny_models, tmp_path, channel):
    """A server with a collection of the tiny model, and a channel to it."""
    config = ServerConfig(
        models=tiny_models,
        data_dir=tmp_path / "var",
        bind="127.0.0.1:0",
        canary_s=0,
        max_images=4,
    )
    server = Server(config)
    opened = channel(f"127.0.0.1:{server.start()}")
    index_pb2_grpc.IndexServiceStub(opened).CreateCollection(
        index_pb2.CreateCollectionRequest(name="c", model="tiny")
    )
    yield server, opened
    server.stop(5)


@pytest.mark.parametrize("method", ["Search", "Upsert", "SearchStream", "UpsertStream"])
def test_images_of_who_leaves_the_queue_are_never_executed(served, hold, wait_for, method):
    server, opened = served
    session = hold(server.engine.get())
    batcher = server.engine.get().worker.batcher
    embed = embedding_pb2_grpc.EmbeddingServiceStub(opened).Embed
    running = embed.future(embedding_pb2.EmbedRequest(pixels=encode_tensor(one_image())))
    wait_for(lambda: session.runs == 1)
    three = np.zeros((3, 4, 4, 3), np.uint8)
    leaving = begin(index_pb2_grpc.IndexServiceStub(opened), method, three)
    wait_for(lambda: batcher.queued_images == 3)
    leaving.cancel()
    wait_for(lambda: batcher.queued_images == 0)
    session.may_run.set()
    assert running.result()
    assert session.runs == 1
    described = index_pb2.DescribeRequest(name="c")
    assert index_pb2_grpc.IndexServiceStub(opened).Describe(described).count == 0


def test_more_images_than_a_call_may_bring(served):
    _, opened = served
    index = index_pb2_grpc.IndexServiceStub(opened)
    five = np.ones((5, 4, 4, 3), np.uint8)
    files = index_pb2.SearchRequest(collection="c", k=1)
    files.encoded.data.extend([png()] * 5)
    within = index_pb2.RangeSearchRequest(collection="c", pixels=encode_tensor(five))
    for call, request in (
        (index.Upsert, upsert_of(five)),
        (index.Search, search_of(five)),
        (index.Search, files),
        (index.RangeSearch, within),
    ):
        assert refusal(call, request) == ("INVALID_ARGUMENT", "MESSAGE_TOO_LARGE", None)
    index.Upsert(upsert_of(five[:4]))
    vectors = index_pb2.SearchRequest(collection="c", k=1, vectors=small(8))
    assert len(index.Search(vectors).results) == 8


def test_images_of_collections_are_counted_as_those_of_embed_are(served):
    server, opened = served
    index = index_pb2_grpc.IndexServiceStub(opened)
    index.Upsert(upsert_of(np.ones((4, 4, 4, 3), np.uint8)))
    index.Search(search_of(one_image()))
    bad = index_pb2.SearchRequest(collection="c", k=1)
    bad.encoded.data.extend([b"junk", png()])
    assert refusal(index.Search, bad)[0] == "INVALID_ARGUMENT"
    text = server.metrics.render().decode()
    assert 'embedkit_items_total{model="tiny",status="ok"} 6.0' in text
    assert 'embedkit_items_total{model="tiny",status="error"} 1.0' in text
