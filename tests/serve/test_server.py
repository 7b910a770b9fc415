"""The whole server in this process: health, reflection, limits, drain, collections."""

import logging
import threading
import time
import urllib.request

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from embedkit.errors import BundleDamaged, NotFound, Unavailable
from embedkit.serve.config import ServerConfig
from embedkit.serve.server import Server, running_server
from embedkit.wire.codec import encode_tensor
from embedkit.wire.proto import embedding_pb2, embedding_pb2_grpc, index_pb2, index_pb2_grpc
from embedkit.wire.status import from_rpc_error

SERVICES = [
    "embedkit.v1.EmbeddingService",
    "embedkit.v1.IndexService",
    "embedkit.v1.ModelService",
    "inference.GRPCInferenceService",
]


@pytest.fixture
def config(tiny_models, tmp_path):
    return ServerConfig(models=tiny_models, data_dir=tmp_path / "var", bind="127.0.0.1:0")


@pytest.fixture
def start(tiny_models, tmp_path):
    """Start servers that are stopped after the test."""
    servers = []

    def start_one(**values):
        base = {"models": tiny_models, "data_dir": tmp_path / "var", "bind": "127.0.0.1:0"}
        servers.append(Server(ServerConfig(**{**base, **values})))
        return servers[-1], servers[-1].start()

    yield start_one
    for server in servers:
        server.stop(5)


def request_of(images):
    return embedding_pb2.EmbedRequest(pixels=encode_tensor(images))


def health_of(channel, service=""):
    stub = health_pb2_grpc.HealthStub(channel)
    status = stub.Check(health_pb2.HealthCheckRequest(service=service)).status
    return health_pb2.HealthCheckResponse.ServingStatus.Name(status)


@pytest.mark.parametrize("service", ["", *SERVICES])
def test_health_is_serving_for_each_service(start, channel, service):
    _, port = start()
    assert health_of(channel(f"127.0.0.1:{port}"), service) == "SERVING"


def test_reflection_tells_services_and_their_messages(start, channel):
    _, port = start()
    database = ProtoReflectionDescriptorDatabase(channel(f"127.0.0.1:{port}"))
    assert set(SERVICES) < set(database.get_services())
    service = DescriptorPool(database).FindServiceByName(SERVICES[0])
    assert service.FindMethodByName("Embed").input_type.name == "EmbedRequest"


def test_reflection_can_be_switched_off(start, channel):
    _, port = start(reflection=False)
    database = ProtoReflectionDescriptorDatabase(channel(f"127.0.0.1:{port}"))
    with pytest.raises(grpc.RpcError) as caught:
        database.get_services()
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_the_reason_for_a_large_message_is_ours_up_to_the_margin(start, channel):
    _, port = start(max_message_bytes=100_000)
    call = channel(f"127.0.0.1:{port}").unary_unary("/embedkit.v1.EmbeddingService/Embed")
    for size, reason in ((100_001, "MESSAGE_TOO_LARGE"), (1_100_000, "MESSAGE_TOO_LARGE")):
        with pytest.raises(grpc.RpcError) as caught:
            call(bytes(size))
        assert from_rpc_error(caught.value).reason == reason
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.RpcError) as caught:
        call(bytes(2_000_000))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_draining_finishes_what_runs_and_says_that_it_does_not_serve(start, channel, images):
    server, port = start()
    open_channel = channel(f"127.0.0.1:{port}")
    model = server.engine.get()
    session = model.crew.sessions[0]
    may_run, began, original = threading.Event(), threading.Event(), session.run

    def held(*args):
        began.set()
        assert may_run.wait(10)
        return original(*args)

    session.run = held
    stub = embedding_pb2_grpc.EmbeddingServiceStub(open_channel)
    health = health_pb2_grpc.HealthStub(open_channel).Watch(health_pb2.HealthCheckRequest())
    assert next(health).status == health_pb2.HealthCheckResponse.SERVING
    running = stub.Embed.future(request_of(images))
    assert began.wait(10)
    stopping = threading.Thread(target=server.stop, args=(10,))
    stopping.start()
    assert next(health).status == health_pb2.HealthCheckResponse.NOT_SERVING
    health.cancel()
    while not server._guard._is_draining:  # health is told first, so that callers turn away
        time.sleep(0.001)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Embed(request_of(images), timeout=5)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    may_run.set()
    assert len(running.result(10).embeddings.data) == 5 * 8 * 4
    stopping.join(10)
    assert not stopping.is_alive()
    server.wait()


def test_stopping_twice_is_stopping(start):
    server, _ = start()
    server.stop(1)
    server.stop(1)


def test_metrics_are_on_the_side_port(start, channel, images):
    server, port = start(metrics_bind="127.0.0.1:0")
    stub = embedding_pb2_grpc.EmbeddingServiceStub(channel(f"127.0.0.1:{port}"))
    stub.Embed(request_of(images))
    with pytest.raises(grpc.RpcError):
        stub.Embed(embedding_pb2.EmbedRequest())
    with urllib.request.urlopen(f"http://{server.metrics_address}/metrics") as reply:
        text = reply.read().decode()
    for line in (
        'embedkit_requests_total{code="OK",rpc="EmbeddingService/Embed"} 1.0',
        'embedkit_requests_total{code="INVALID_ARGUMENT",rpc="EmbeddingService/Embed"} 1.0',
        'embedkit_items_total{model="tiny",status="ok"} 5.0',
        'embedkit_batch_size_bucket{le="8",model="tiny"} 1.0',
        'embedkit_queue_items{model="tiny",version="1"} 0.0',
        'embedkit_active_provider{model="tiny",provider="CPUExecutionProvider",version="1"} 1',
    ):
        assert line in text
    with urllib.request.urlopen(f"http://{server.metrics_address}/readyz") as reply:
        assert reply.status == 200


def test_failed_calls_are_in_the_access_log(start, channel, caplog, wait_for):
    caplog.set_level(logging.INFO, logger="embedkit.access")
    _, port = start(access_log="errors")
    stub = embedding_pb2_grpc.EmbeddingServiceStub(channel(f"127.0.0.1:{port}"))
    with pytest.raises(grpc.RpcError):
        stub.Embed(embedding_pb2.EmbedRequest(request_id="r7"))
    # The caller has its answer before the line is written.
    wait_for(lambda: any(r.name == "embedkit.access" for r in caplog.records))
    (record,) = [r for r in caplog.records if r.name == "embedkit.access"]
    assert record.fields["id"] == "r7"
    assert record.fields["code"] == "INVALID_ARGUMENT"


def test_collections_are_filled_and_searched_by_image(start, channel, images):
    server, port = start()
    stub = index_pb2_grpc.IndexServiceStub(channel(f"127.0.0.1:{port}"))
    made = stub.CreateCollection(index_pb2.CreateCollectionRequest(name="photos", model="tiny"))
    assert (made.dim, made.model_digest) == (8, server.engine.get().digest)
    ids = [f"i{n}" for n in range(5)]
    pixels = encode_tensor(images)
    stub.Upsert(index_pb2.UpsertRequest(collection="photos", ids=ids, pixels=pixels))
    found = stub.Search(index_pb2.SearchRequest(collection="photos", pixels=pixels, k=1))
    assert [hits.ids[0] for hits in found.results] == ids
    np.testing.assert_allclose([hits.scores[0] for hits in found.results], 1, atol=1e-5)
    assert b'embedkit_index_vectors{collection="photos"} 5.0' in server.metrics.render()


def test_binding_wider_than_loopback_is_said_loudly(start, caplog):
    start(bind="0.0.0.0:0")
    assert "ANYONE WHO REACHES 0.0.0.0:0" in caplog.text


@pytest.mark.parametrize("bind", ["127.0.0.1:0", "localhost:0", "[::1]:0"])
def test_loopback_is_quiet(start, caplog, bind):
    start(bind=bind)
    assert "ANYONE" not in caplog.text


def test_a_taken_port_is_unavailable(start, tmp_path):
    _, port = start()
    with pytest.raises(Unavailable, match="expected to bind"):
        start(bind=f"127.0.0.1:{port}", data_dir=tmp_path / "other")


def test_a_missing_model_stops_the_start(start):
    with pytest.raises(NotFound, match="other"):
        start(load=("other",))


def test_a_damaged_bundle_stops_the_start(start, tiny_models):
    graph = tiny_models / "tiny" / "1" / "model.onnx"
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(bytes(data))
    with pytest.raises(BundleDamaged, match=r"model\.onnx"):
        start()


def test_running_server_is_gone_afterwards(tiny_models, tmp_path, channel, images):
    with running_server(models=tiny_models, data_dir=tmp_path / "var") as address:
        stub = embedding_pb2_grpc.EmbeddingServiceStub(channel(address))
        stub.Embed(request_of(images))
    with pytest.raises(grpc.RpcError) as caught:
        stub.Embed(request_of(images), timeout=5)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    names = {thread.name for thread in threading.enumerate()}
    assert not [n for n in names if n.startswith(("model-", "decode", "sideport"))]
