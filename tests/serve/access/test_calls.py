"""Credentials before every method of a real server, on both ways that calls come in."""

import hashlib
import os
import queue
import time

import grpc
import numpy as np
import pytest
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

import embedkit
from embedkit.errors import PermissionDenied, RateLimited, Unauthenticated
from embedkit.serve.access.auth import AuthConfig
from embedkit.serve.services import guard as guard_module
from embedkit.wire.codec import encode_tensor
from embedkit.wire.proto import (
    embedding_pb2,
    embedding_pb2_grpc,
    index_pb2,
    model_pb2,
    model_pb2_grpc,
)
from embedkit.wire.status import from_rpc_error, from_status, retry_delay_s

KEY, OTHER, ADMIN = "k" * 32, "o" * 32, "m" * 32
AUTH = AuthConfig(keys=(f"alice:{KEY}",), admin_tokens=(ADMIN,))
METHODS = [
    method
    for file in (embedding_pb2, index_pb2, model_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]


def bearer(secret):
    return (("authorization", f"Bearer {secret}"),)


def call(channel, method, metadata):
    """Send an empty request and return the failure, or None."""
    kind = "stream_stream" if method.client_streaming else "unary_unary"
    path = f"/{method.containing_service.full_name}/{method.name}"
    request = GetMessageClass(method.input_type)().SerializeToString()
    try:
        if kind == "unary_unary":
            channel.unary_unary(path)(request, metadata=metadata, timeout=10)
        else:
            list(channel.stream_stream(path)(iter([request]), metadata=metadata, timeout=10))
    except grpc.RpcError as error:
        return from_rpc_error(error)
    return None


@pytest.fixture(params=["direct", "threads"])
def address(request, start, monkeypatch):
    if request.param == "threads":
        monkeypatch.setattr(guard_module, "is_supported", lambda server: False)
    return start(auth=AUTH)[1]


def test_no_method_is_open(address, channel):
    open_channel = channel(address)
    assert len(METHODS) > 12
    for method in METHODS:
        for metadata in ((), bearer("wrong"), (("x-api-key", OTHER),)):
            error = call(open_channel, method, metadata)
            assert isinstance(error, Unauthenticated), (method.full_name, error)


def test_a_key_opens_every_method_but_the_admins(address, channel):
    open_channel = channel(address)
    for method in METHODS:
        error = call(open_channel, method, bearer(KEY))
        is_admin = method.name in ("LoadModel", "UnloadModel")
        assert isinstance(error, PermissionDenied) == is_admin, (method.full_name, error)
        assert not isinstance(error, Unauthenticated)
        error = call(open_channel, method, bearer(ADMIN))
        assert not isinstance(error, PermissionDenied | Unauthenticated), method.full_name


def test_health_needs_no_key(address, channel):
    reply = health_pb2_grpc.HealthStub(channel(address)).Check(health_pb2.HealthCheckRequest())
    assert reply.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_needs_a_key(address, channel):
    with pytest.raises(grpc.RpcError) as caught:
        ProtoReflectionDescriptorDatabase(channel(address)).get_services()
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    ask = channel(address).stream_stream(path)
    list_services = b"\x3a\x00"  # list_services: ""
    (reply,) = ask(iter([list_services]), metadata=bearer(KEY), timeout=10)
    assert b"embedkit.v1.EmbeddingService" in reply


def test_the_open_inference_protocol_needs_a_key(address, channel):
    for method in ("ServerLive", "ServerReady", "ServerMetadata", "ModelInfer"):
        ask = channel(address).unary_unary(f"/inference.GRPCInferenceService/{method}")
        with pytest.raises(grpc.RpcError) as caught:
            ask(b"", timeout=10)
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED, method
    live = channel(address).unary_unary("/inference.GRPCInferenceService/ServerLive")
    assert live(b"", metadata=bearer(KEY), timeout=10) == b"\x08\x01"  # live: true


def test_the_client_sends_its_token(address, images):
    with embedkit.connect(address, token=KEY) as client:
        assert client.embed(images).shape == (5, 8)
    for token in (None, OTHER, "k" * 600, "~!@#$%^&*()_+{}|:<>?`-=[];',./\"\\"):
        with (
            embedkit.connect(address, token=token, retry_s=0) as client,
            pytest.raises(Unauthenticated),
        ):
            client.models()


def test_the_access_log_names_the_caller_and_no_key(start, channel, images, caplog):
    caplog.set_level("INFO", logger="embedkit.access")
    _, address = start(auth=AUTH, access_log="all")
    with embedkit.connect(address, token=KEY, retry_s=0) as client:
        client.embed(images)
        with pytest.raises(PermissionDenied):
            client.load_model("tiny")
    with embedkit.connect(address, token=ADMIN) as client:
        client.load_model("tiny")

    def logged():
        return [r.fields for r in caplog.records if r.name == "embedkit.access"]

    deadline = time.monotonic() + 10  # a call is answered before its line is written
    while len(logged()) < 4 and time.monotonic() < deadline:
        time.sleep(0.005)
    fields = logged()
    assert {(f["rpc"].partition("/")[2], f["code"], f.get("caller", "")) for f in fields} == {
        ("ListModels", "OK", "alice"),
        ("Embed", "OK", "alice"),
        ("LoadModel", "PERMISSION_DENIED", ""),
        ("LoadModel", "OK", f"admin-{hashlib.sha256(ADMIN.encode()).hexdigest()[:8]}"),
    }
    assert KEY not in str(fields)
    assert ADMIN not in str(fields)


def test_the_access_log_names_who_is_refused_for_a_spent_rate(
    start, channel, images, caplog, wait_for
):
    caplog.set_level("INFO", logger="embedkit.access")
    auth = AuthConfig(keys=(f"alice:{KEY}",), rate_limit=0.01)
    _, address = start(auth=auth, access_log="all")
    opened = channel(address)
    embed = embedding_pb2_grpc.EmbeddingServiceStub(opened).Embed
    request = embedding_pb2.EmbedRequest(pixels=encode_tensor(images))
    embed(request, metadata=bearer(KEY), timeout=10)
    models = model_pb2_grpc.ModelServiceStub(opened).ListModels
    for method, message in ((embed, request), (models, model_pb2.ListModelsRequest())):
        with pytest.raises(grpc.RpcError, match="images per second"):
            method(message, metadata=bearer(KEY), timeout=10)

    def refused():
        records = [r.fields for r in caplog.records if r.name == "embedkit.access"]
        return [f.get("caller") for f in records if f.get("reason") == "RATE_LIMITED"]

    wait_for(lambda: len(refused()) == 2)
    assert refused() == ["alice", "alice"]


def test_odd_and_huge_metadata_is_a_status_and_the_server_goes_on(address, channel, images):
    stub = embedding_pb2_grpc.EmbeddingServiceStub(channel(address))
    request = embedding_pb2.EmbedRequest(pixels=encode_tensor(images))
    odd = [
        (("authorization", "Bearer"),),
        (("authorization", "Bearer "),),
        (("authorization", ""),),
        (("authorization", "Bearer " + "x" * 6000),),
        (("x-api-key", "x" * 6000),),
        (("x-api-key-bin", b"\x00\xff" * 100), ("authorization-bin", KEY.encode())),
        tuple((f"h{i}", "v" * 10) for i in range(100)),
        (("x-api-key", "x" * 100_000),),
        (("filler", "x" * 1_000_000),),
    ]
    allowed = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.RESOURCE_EXHAUSTED}
    for metadata in odd:
        with pytest.raises(grpc.RpcError) as caught:
            stub.Embed(request, metadata=metadata, timeout=10)
        assert caught.value.code() in allowed, metadata[0]
    assert len(stub.Embed(request, metadata=bearer(KEY), timeout=10).embeddings.data) == 160


def test_the_rate_of_a_key_is_kept_and_a_client_waits_for_it(start, channel, images):
    _, address = start(auth=AuthConfig(keys=(f"alice:{KEY}", f"bob:{OTHER}"), rate_limit=20))
    stub = embedding_pb2_grpc.EmbeddingServiceStub(channel(address))
    request = embedding_pb2.EmbedRequest(pixels=encode_tensor(images))
    for _ in range(4):  # 20 images
        stub.Embed(request, metadata=bearer(KEY), timeout=10)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Embed(request, metadata=bearer(KEY), timeout=10)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert isinstance(from_rpc_error(caught.value), RateLimited)
    assert 0 < retry_delay_s(caught.value) <= 0.1
    stub.Embed(request, metadata=bearer(OTHER), timeout=10)
    with embedkit.connect(address, token=KEY) as client:
        assert client.embed(images).shape == (5, 8)


def test_a_spent_rate_refuses_requests_in_a_stream_and_the_stream_goes_on(
    start, channel, images
):
    _, address = start(auth=AuthConfig(keys=(KEY,), rate_limit=12))
    stub = embedding_pb2_grpc.EmbeddingServiceStub(channel(address))
    sent = queue.SimpleQueue()
    stream = stub.EmbedStream(iter(sent.get, None), metadata=bearer(KEY), timeout=20)
    codes = []
    for number in range(4):
        sent.put(
            embedding_pb2.EmbedRequest(request_id=f"{number}", pixels=encode_tensor(images))
        )
        reply = next(stream)
        codes.append(from_status(reply.status).reason if reply.status.code else "OK")
        assert reply.request_id == f"{number}"
    assert codes[:2] == ["OK", "OK"]
    assert codes[3] == "RATE_LIMITED"
    sent.put(None)
    assert list(stream) == []


def test_keys_are_rotated_in_a_running_server_also_within_a_stream(
    start, channel, images, tmp_path
):
    file = tmp_path / "keys"
    file.write_text(f"alice:{KEY}\n")
    server, address = start(auth=AuthConfig(keys_file=file))
    now = [time.monotonic()]
    server._guard._access._keys._clock = lambda: now[0]
    stub = embedding_pb2_grpc.EmbeddingServiceStub(channel(address))
    request = embedding_pb2.EmbedRequest(pixels=encode_tensor(images))
    sent = queue.SimpleQueue()
    stream = stub.EmbedStream(iter(sent.get, None), metadata=bearer(KEY), timeout=20)
    sent.put(request)
    assert next(stream).embeddings.shape == [5, 8]
    stub.Embed(request, metadata=bearer(KEY), timeout=10)
    with pytest.raises(grpc.RpcError):
        stub.Embed(request, metadata=bearer(OTHER), timeout=10)
    file.write_text(f"alice:{OTHER}\n")
    os.utime(file, (1, 1))
    now[0] += 2
    stub.Embed(request, metadata=bearer(OTHER), timeout=10)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Embed(request, metadata=bearer(KEY), timeout=10)
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    sent.put(request)
    assert from_status(next(stream).status).reason == "UNAUTHENTICATED"
    sent.put(None)
    assert list(stream) == []


def test_an_open_server_with_an_admin_token_asks_admins_only(start, channel, images):
    _, address = start(auth=AuthConfig(admin_tokens=(ADMIN,)))
    open_channel = channel(address)
    embed = embedding_pb2_grpc.EmbeddingServiceStub(open_channel).Embed
    reply = embed(embedding_pb2.EmbedRequest(pixels=encode_tensor(images)), timeout=10)
    assert np.frombuffer(reply.embeddings.data, "<f4").shape == (40,)
    stub = model_pb2_grpc.ModelServiceStub(open_channel)
    request = model_pb2.LoadModelRequest(name="tiny")
    with pytest.raises(grpc.RpcError) as caught:
        stub.LoadModel(request, timeout=10)
    assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
    assert stub.LoadModel(request, metadata=bearer(ADMIN), timeout=10).version == "1"
