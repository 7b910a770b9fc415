"""Priority and deadline through the wire: how requests stand in a busy server's line."""

import threading
import time

import grpc
import numpy as np
import pytest

from embedkit.serve.batcher import BatchLimits
from embedkit.serve.config import ServerConfig
from embedkit.serve.engine import EngineConfig
from embedkit.serve.server import Server
from embedkit.wire.codec import encode_tensor
from embedkit.wire.proto import embedding_pb2, embedding_pb2_grpc


class Gate:
    """A real session that runs one batch for each permit, and remembers what it ran."""

    def __init__(self, session):
        self.ran, self.permits = [], threading.Semaphore(0)
        self.original, session.run = session.run, self

    def __call__(self, images, outputs):
        self.ran.append(images[:, 0, 0, 0].tolist())
        assert self.permits.acquire(timeout=20)
        return self.original(images, outputs)


@pytest.fixture
def server(tiny_models, tmp_path):
    limits = BatchLimits(4, 16, bulk_share=0.25)
    config = ServerConfig(
        models=tiny_models,
        data_dir=tmp_path / "var",
        bind="127.0.0.1:0",
        engine=EngineConfig(limits, threads=1),
        canary_s=0,
    )
    server = Server(config)
    server.port = server.start()
    yield server
    server.stop(5)


@pytest.fixture
def gate(server):
    gate = Gate(server.engine.get().crew.sessions[0])
    yield gate
    for _ in range(100):
        gate.permits.release()


@pytest.fixture
def embed(server, channel):
    """Begin calls whose images are filled with a number."""
    stub = embedding_pb2_grpc.EmbeddingServiceStub(channel(f"127.0.0.1:{server.port}"))

    def begin(number, count=1, timeout=20, **fields):
        images = np.full((count, 4, 4, 3), number, np.uint8)
        request = embedding_pb2.EmbedRequest(pixels=encode_tensor(images), **fields)
        return stub.Embed.future(request, timeout=timeout)

    return begin


def wait_for(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def waiting(server, images):
    batcher = server.engine.get().worker.batcher
    wait_for(lambda: batcher.queued_images == images)


def test_interactive_requests_pass_bulk_which_keeps_its_share(server, gate, embed):
    calls = [embed(0)]
    wait_for(lambda: gate.ran)
    calls.append(embed(1, 8, priority=embedding_pb2.BULK))
    waiting(server, 8)
    calls.append(embed(2, 4, priority=embedding_pb2.INTERACTIVE))
    waiting(server, 12)
    calls.append(embed(3, 2))
    waiting(server, 14)
    for _ in range(5):
        gate.permits.release()
    for call in calls:
        assert not call.result(20).errors
    assert gate.ran == [[0], [2, 2, 2, 1], [2, 3, 3, 1], [1, 1, 1, 1], [1, 1]]


def test_an_unknown_priority_is_refused(embed):
    error = embed(0, priority=7).exception(20)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "INTERACTIVE or BULK, got 7" in error.details()


def test_a_deadline_that_cannot_be_met_is_refused_without_waiting_for_it(server, gate, embed):
    calls = [embed(0)]
    wait_for(lambda: gate.ran)
    server.engine.get().worker.pace.image_s = 10.0  # as if batches had taken so long
    calls.append(embed(1, 4, timeout=300))
    waiting(server, 4)
    began = time.monotonic()
    error = embed(2, timeout=20).exception(30)
    assert time.monotonic() - began < 10
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert "a deadline that can be met" in error.details()
    calls.append(embed(3, timeout=300))
    for _ in range(4):
        gate.permits.release()
    for call in calls:
        assert not call.result(20).errors
    assert not any(2 in batch for batch in gate.ran)
