"""The failure table, row by row, over a real channel: code, reason, and whether to retry.

Each row that concerns images is put to ``Embed``, to ``EmbedStream`` and to the Open Inference
Protocol. Credentials have their rows in ``access/``; 'never executed' after a deadline or a
cancellation is tested with each transport.
"""

import io
import threading
from dataclasses import dataclass

import grpc
import numpy as np
import pytest
from PIL import Image

from embedkit.serve.batcher import BatchLimits
from embedkit.serve.config import ServerConfig
from embedkit.serve.engine import EngineConfig
from embedkit.serve.server import Server
from embedkit.wire.proto import (
    embedding_pb2,
    embedding_pb2_grpc,
    tensor_pb2,
)
from embedkit.wire.proto.inference import open_inference_pb2 as oip
from embedkit.wire.proto.inference import open_inference_pb2_grpc
from tests.serve.statuses import read, refusal, status_of

MESSAGE_BYTES = 40_000
QUEUE_BYTES = 30_000
IMAGE_BYTES = 4 * 4 * 3


def png(height=4, width=4):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@dataclass(frozen=True)
class Ask:
    """A request, whatever carries it: pixels by their shape, or files."""

    shape: tuple[int, ...] = (1, 4, 4, 3)
    missing_bytes: int = 0
    files: tuple[bytes, ...] = ()
    model: str = "tiny"
    version: str = ""
    outputs: tuple[str, ...] = ()

    @property
    def data(self):
        return bytes(int(np.prod(self.shape)) - self.missing_bytes)


def embed_request(ask):
    codes = {"ood_score": embedding_pb2.OOD_SCORE, "tokens": embedding_pb2.TOKENS}
    request = embedding_pb2.EmbedRequest(
        request_id="r1",
        model=ask.model,
        version=ask.version,
        outputs=[codes[name] for name in ask.outputs],
    )
    if ask.files:
        request.encoded.data.extend(ask.files)
    else:
        request.pixels.data = ask.data
        request.pixels.dtype = tensor_pb2.UINT8
        request.pixels.shape.extend(ask.shape)
    return request


def infer_request(ask):
    request = oip.ModelInferRequest(id="r1", model_name=ask.model, model_version=ask.version)
    for name in ask.outputs:
        request.outputs.add(name=name)
    if ask.files:
        framed = b"".join(len(f).to_bytes(4, "little") + f for f in ask.files)
        request.inputs.add(name="encoded", datatype="BYTES", shape=[len(ask.files)])
        request.raw_input_contents.append(framed)
    else:
        request.inputs.add(name="images", datatype="UINT8", shape=ask.shape)
        request.raw_input_contents.append(ask.data)
    return request


def by_call(channel, ask):
    """Begin ``Embed``; returns how to wait for its status."""
    stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
    return finish(stub.Embed.future(embed_request(ask), timeout=20))


def by_stream(channel, ask):
    """Begin a request in ``EmbedStream``; the stream must go on after it."""
    stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
    may_end = threading.Event()

    def requests():
        yield embed_request(ask)
        may_end.wait(20)

    replies = stub.EmbedStream(requests(), timeout=20)

    def wait():
        reply = next(replies)
        assert reply.request_id == "r1"
        may_end.set()
        assert list(replies) == []
        return reply.status if reply.HasField("status") else None

    return wait


def by_inference(channel, ask):
    """Begin ``ModelInfer``."""
    stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
    return finish(stub.ModelInfer.future(infer_request(ask), timeout=20))


def finish(future):
    def wait():
        error = future.exception()
        return None if error is None else status_of(error)

    return wait


WAYS = pytest.mark.parametrize("begin", [by_call, by_stream, by_inference])


@pytest.fixture
def served(tiny_models, tmp_path, channel):
    """A small server and a channel to it."""
    config = ServerConfig(
        models=tiny_models,
        data_dir=tmp_path / "var",
        bind="127.0.0.1:0",
        max_message_bytes=MESSAGE_BYTES,
        max_images=700,
        engine=EngineConfig(
            BatchLimits(8, 16, max_queue_bytes=QUEUE_BYTES), max_pixels=64 * 64
        ),
    )
    server = Server(config)
    opened = channel(f"127.0.0.1:{server.start()}")
    yield server, opened
    server.stop(10)


BAD = ("INVALID_ARGUMENT", "INVALID_INPUT", None)
BAD_IMAGE = ("INVALID_ARGUMENT", "BAD_IMAGE", None)
TOO_LARGE = ("INVALID_ARGUMENT", "MESSAGE_TOO_LARGE", None)
MISSING = ("NOT_FOUND", "NOT_FOUND", None)


@WAYS
@pytest.mark.parametrize(
    ("ask", "expected"),
    [
        (Ask((1, 4, 4, 2)), BAD),
        (Ask((4, 4, 3)), BAD),
        (Ask(missing_bytes=1), BAD),
        (Ask((0, 4, 4, 3)), BAD),
        (Ask(files=(b"junk",)), BAD_IMAGE),
        (Ask(files=(b"",)), BAD_IMAGE),
        (Ask(files=(png(65, 64),)), BAD_IMAGE),
        (Ask((1, 120, 112, 3)), TOO_LARGE),
        (Ask((701, 4, 4, 3)), TOO_LARGE),
        (Ask((17, 4, 4, 3)), TOO_LARGE),
        (Ask(model="other"), MISSING),
        (Ask(version="2"), MISSING),
        (Ask(outputs=("ood_score",)), MISSING),
    ],
    ids=lambda value: "" if isinstance(value, tuple) else None,
)
def test_what_the_caller_got_wrong(served, begin, ask, expected):
    status = begin(served[1], ask)()
    assert read(status) == expected


@WAYS
def test_a_full_queue_by_images(served, begin, hold, wait_for):
    server, opened = served
    session = hold(server.engine.get())
    model = server.engine.get()
    waiting = [by_call(opened, Ask((8, 4, 4, 3)))]
    wait_for(lambda: session.runs == 8)
    waiting += [by_call(opened, Ask((8, 4, 4, 3))) for _ in range(2)]
    wait_for(lambda: model.worker.batcher.queued_images == 16)
    assert read(begin(opened, Ask())()) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL", 0.05)
    session.may_run.set()
    assert [wait() for wait in waiting] == [None] * 3


@WAYS
def test_a_full_queue_by_bytes(tmp_path, tiny_models, channel, begin, hold, wait_for):
    limits = BatchLimits(8, 1000, max_queue_bytes=10 * IMAGE_BYTES)
    config = ServerConfig(
        tiny_models, tmp_path / "v", "127.0.0.1:0", engine=EngineConfig(limits)
    )
    server = Server(config)
    opened = channel(f"127.0.0.1:{server.start()}")
    try:
        session = hold(server.engine.get())
        waiting = [by_call(opened, Ask((8, 4, 4, 3)))]
        wait_for(lambda: session.runs == 8)
        waiting.append(by_call(opened, Ask((8, 4, 4, 3))))
        batcher = server.engine.get().worker.batcher
        wait_for(lambda: batcher.queued_bytes == 8 * IMAGE_BYTES)
        status = begin(opened, Ask((3, 4, 4, 3)))()
        assert read(status) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL", 0.05)
        session.may_run.set()
        assert [wait() for wait in waiting] == [None] * 2
    finally:
        session.may_run.set()
        server.stop(10)


@pytest.mark.parametrize("bad", [b"junk", png(65, 64)], ids=["junk", "too many pixels"])
def test_a_bad_image_among_several_fails_alone(served, bad):
    stub = embedding_pb2_grpc.EmbeddingServiceStub(served[1])
    request = embed_request(Ask(files=(png(), bad, png())))
    (streamed,) = stub.EmbedStream(iter([request]))
    for reply in (stub.Embed(request), streamed):
        assert not reply.HasField("status")
        (error,) = reply.errors
        assert error.index == 1
        assert read(error.status) == BAD_IMAGE
    # The Open Inference Protocol has no status per image.
    assert read(by_inference(served[1], Ask(files=(png(), bad)))()) == BAD_IMAGE


def stop(server, wait_for):
    """Begin to stop a server; returns the thread."""
    stopping = threading.Thread(target=server.stop, args=(10,))
    stopping.start()
    wait_for(lambda: server._guard._is_draining)
    return stopping


DRAINING = ("UNAVAILABLE", "UNAVAILABLE", 0.5)


@pytest.mark.parametrize("begin", [by_call, by_inference])
def test_draining(served, begin, hold, wait_for):
    server, opened = served
    session = hold(server.engine.get())
    running = begin(opened, Ask())
    wait_for(lambda: session.runs == 1)
    stopping = stop(server, wait_for)
    assert read(begin(opened, Ask())()) == DRAINING
    session.may_run.set()
    assert running() is None
    stopping.join(10)
    assert not stopping.is_alive()


def test_draining_a_stream(served, hold, wait_for):
    server, opened = served
    session = hold(server.engine.get())
    is_draining, may_end = threading.Event(), threading.Event()

    def requests():
        yield embed_request(Ask())
        assert is_draining.wait(20)
        yield embed_request(Ask())
        may_end.wait(20)

    stub = embedding_pb2_grpc.EmbeddingServiceStub(opened)
    replies = stub.EmbedStream(requests(), timeout=20)
    wait_for(lambda: session.runs == 1)
    stopping = stop(server, wait_for)
    is_draining.set()
    late = next(replies)
    assert late.request_id == "r1"
    assert read(late.status) == DRAINING
    session.may_run.set()
    assert not next(replies).HasField("status")
    with pytest.raises(grpc.RpcError):
        next(replies)
    assert read(status_of(replies)) == DRAINING
    may_end.set()
    stopping.join(10)
    assert not stopping.is_alive()


def methods(channel):
    """Unary methods and how their requests are made."""
    embedding = embedding_pb2_grpc.EmbeddingServiceStub(channel)
    inference = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
    return {
        "call": (embedding.Embed, embed_request),
        "inference": (inference.ModelInfer, infer_request),
    }


@pytest.mark.parametrize("leave", ["deadline", "cancel"])
@pytest.mark.parametrize("begin", ["call", "inference"])
def test_who_leaves_the_queue_is_never_executed(served, hold, wait_for, begin, leave):
    server, opened = served
    session = hold(server.engine.get())
    batcher = server.engine.get().worker.batcher
    running = by_call(opened, Ask())
    wait_for(lambda: session.runs == 1)
    timeout = 0.2 if leave == "deadline" else 20
    call, request = methods(opened)[begin]
    future = call.future(request(Ask((3, 4, 4, 3))), timeout=timeout)
    wait_for(lambda: batcher.queued_images == 3)
    if leave == "cancel":
        future.cancel()
    else:
        assert future.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    wait_for(lambda: batcher.queued_images == 0)
    session.may_run.set()
    assert running() is None
    assert by_call(opened, Ask())() is None
    assert session.runs == 2


def test_bytes_that_are_no_message(served):
    for method in (
        "embedkit.v1.EmbeddingService/Embed",
        "embedkit.v1.IndexService/Search",
        "inference.GRPCInferenceService/ModelInfer",
    ):
        assert refusal(served[1].unary_unary(f"/{method}"), b"\xff\xff\xff") == BAD
