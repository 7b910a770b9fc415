"""Embed over a real channel: every output, every row of the failure table that is its own."""

import io
import threading
import time

import grpc
import numpy as np
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2
from PIL import Image

from embedkit.bundle import pack_arrays
from embedkit.detect.detector import Observation, detectors
from embedkit.serve.batcher import BatchLimits
from embedkit.serve.config import ServerConfig
from embedkit.serve.engine import EngineConfig
from embedkit.serve.server import Server, running_server
from embedkit.wire.codec import decode_tensor, encode_tensor
from embedkit.wire.proto import embedding_pb2 as pb
from embedkit.wire.proto import embedding_pb2_grpc, tensor_pb2

DIM = 8


@pytest.fixture
def stub(tiny_models, tmp_path, channel):
    with running_server(models=tiny_models, data_dir=tmp_path / "var") as address:
        yield embedding_pb2_grpc.EmbeddingServiceStub(channel(address))


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def vectors(tensor, dtype="float32"):
    return decode_tensor(tensor, axes="n d", dtypes=(dtype,))


def details(error):
    """Reason and seconds of retry of a failed call."""
    trailing = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    assert code_pb2.Code.Name(status.code) == error.code().name
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "embedkit"
    has_retry = len(status.details) > 1 and status.details[1].Unpack(retry)
    return info.reason, retry.retry_delay.ToTimedelta().total_seconds() if has_retry else None


def failure(call, *args, **kw):
    with pytest.raises(grpc.RpcError) as caught:
        call(*args, **kw)
    return caught.value


def test_pixels_give_embeddings_digest_and_timing(stub, images, reference):
    reply = stub.Embed(pb.EmbedRequest(request_id="r1", pixels=encode_tensor(images)))
    np.testing.assert_allclose(vectors(reply.embeddings), unit(reference(images)), atol=1e-6)
    assert reply.request_id == "r1"
    assert reply.model_digest.startswith("sha256:")
    assert reply.timing.batch_size == 5
    assert reply.timing.infer_ns > 0
    assert not reply.HasField("features")
    assert not reply.errors


def test_files_give_the_same_as_pixels(stub, images):
    files = stub.Embed(pb.EmbedRequest(encoded={"data": [png(i) for i in images]}))
    pixels = stub.Embed(pb.EmbedRequest(pixels=encode_tensor(images)))
    assert files.embeddings.data == pixels.embeddings.data
    assert files.timing.decode_ns > 0


def test_every_output_that_the_bundle_has(stub, images, reference, head):
    request = pb.EmbedRequest(
        pixels=encode_tensor(images), outputs=[pb.EMBEDDING, pb.FEATURES, pb.CLASS]
    )
    reply = stub.Embed(request)
    features = reference(images)
    np.testing.assert_allclose(vectors(reply.features), features, rtol=1e-4, atol=1e-5)
    labels = decode_tensor(reply.classes.labels, axes="n", dtypes=("int64",))
    np.testing.assert_array_equal(labels, head.logits(features).argmax(axis=1))
    assert tuple(reply.classes.class_names) == head.class_names
    np.testing.assert_allclose(vectors(reply.classes.probabilities).sum(axis=1), 1, rtol=1e-5)


def test_tokens_and_novelty_of_a_bundle_that_has_them(
    tmp_path, write_tiny, images, channel, rng
):
    known = unit(rng.standard_normal((80, DIM)).astype(np.float32))
    state = detectors.get("knn")().fit(Observation(known, known)).state()
    write_tiny(tmp_path / "m", tokens=True, extra={"detectors/knn.npz": pack_arrays(state)})
    with running_server(models=tmp_path / "m", data_dir=tmp_path / "var") as address:
        stub = embedding_pb2_grpc.EmbeddingServiceStub(channel(address))
        reply = stub.Embed(
            pb.EmbedRequest(pixels=encode_tensor(images), outputs=[pb.TOKENS, pb.OOD_SCORE])
        )
    assert decode_tensor(reply.tokens, axes="n t d", dtypes=("float32",)).shape == (5, 2, 4)
    scores = decode_tensor(reply.ood_scores, axes="n", dtypes=("float64",))
    assert scores.shape == (5,)
    assert not reply.HasField("embeddings")


@pytest.mark.parametrize(
    ("dtype", "name", "limit"),
    [(tensor_pb2.FLOAT16, "float16", 1e-3), (tensor_pb2.INT8, "int8", 5e-3)],
)
def test_smaller_dtypes_are_close(stub, images, dtype, name, limit):
    full = stub.Embed(pb.EmbedRequest(pixels=encode_tensor(images)))
    small = stub.Embed(pb.EmbedRequest(pixels=encode_tensor(images), dtype=dtype))
    assert len(small.embeddings.data) < len(full.embeddings.data)
    np.testing.assert_allclose(
        vectors(small.embeddings, name), vectors(full.embeddings), atol=limit
    )


@pytest.fixture
def rich(tmp_path, write_tiny, channel, rng):
    """A stub to a model with every output."""
    known = unit(rng.standard_normal((80, DIM)).astype(np.float32))
    state = detectors.get("knn")().fit(Observation(known, known)).state()
    write_tiny(tmp_path / "m", tokens=True, extra={"detectors/knn.npz": pack_arrays(state)})
    with running_server(models=tmp_path / "m", data_dir=tmp_path / "var") as address:
        yield embedding_pb2_grpc.EmbeddingServiceStub(channel(address))


EVERYTHING = [pb.EMBEDDING, pb.FEATURES, pb.TOKENS, pb.OOD_SCORE, pb.CLASS]


@pytest.mark.parametrize("dims", [0, 3])
@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        (tensor_pb2.FLOAT32, "float32"),
        (tensor_pb2.FLOAT16, "float16"),
        (tensor_pb2.INT8, "int8"),
    ],
)
def test_dtype_and_dims_hold_for_vectors_and_leave_scores_alone(
    rich, images, dtype, name, dims
):
    request = pb.EmbedRequest(pixels=encode_tensor(images), outputs=EVERYTHING)
    full = rich.Embed(request)
    request.dtype, request.dims = dtype, dims
    reply = rich.Embed(request)
    expected = vectors(full.embeddings)
    if dims:
        expected = unit(expected[:, :dims])
    np.testing.assert_allclose(vectors(reply.embeddings, name), expected, atol=5e-3)
    for field, axes in (("features", "n d"), ("tokens", "n t d")):
        whole = decode_tensor(getattr(full, field), axes=axes, dtypes=("float32",))
        small = decode_tensor(getattr(reply, field), axes=axes, dtypes=(name,))
        assert small.shape == whole.shape
        np.testing.assert_allclose(small, whole, atol=np.abs(whole).max() / 127)
    assert reply.ood_scores == full.ood_scores
    assert reply.classes == full.classes
    (streamed,) = rich.EmbedStream(iter([request]))
    for answer in (reply, streamed):
        answer.ClearField("timing")
    assert streamed == reply


def test_fewer_dimensions_are_normalised_again(stub, images):
    full = vectors(stub.Embed(pb.EmbedRequest(pixels=encode_tensor(images))).embeddings)
    reply = stub.Embed(pb.EmbedRequest(pixels=encode_tensor(images), dims=3))
    np.testing.assert_allclose(vectors(reply.embeddings), unit(full[:, :3]), rtol=1e-5)


def test_a_bad_file_among_several_fails_alone(stub, images):
    reply = stub.Embed(pb.EmbedRequest(encoded={"data": [png(images[0]), b"junk"]}))
    rows = vectors(reply.embeddings)
    assert rows[0].any()
    assert not rows[1].any()
    (error,) = reply.errors
    assert (error.index, error.status.code) == (1, code_pb2.INVALID_ARGUMENT)
    info = error_details_pb2.ErrorInfo()
    assert error.status.details[0].Unpack(info)
    assert info.reason == "BAD_IMAGE"


def test_a_lone_bad_file_fails_the_call(stub):
    error = failure(stub.Embed, pb.EmbedRequest(encoded={"data": [b"junk"]}))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert details(error) == ("BAD_IMAGE", None)


def pixels(shape, dtype=tensor_pb2.UINT8, size=None):
    data = bytes(int(np.prod(shape)) if size is None else size)
    return tensor_pb2.Tensor(data=data, dtype=dtype, shape=shape)


def request_of(more: bytes):
    """A good request with fields behind it that only bytes can have."""
    good = pb.EmbedRequest(pixels=pixels((1, 4, 4, 3)))
    return pb.EmbedRequest.FromString(good.SerializeToString() + more)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (pb.EmbedRequest(), "got neither"),
        (pb.EmbedRequest(pixels=pixels((0, 4, 4, 3))), "at least one image"),
        (pb.EmbedRequest(encoded={}), "at least one image"),
        (pb.EmbedRequest(pixels=pixels((1, 4, 4, 2))), "1 or 3 channels"),
        (pb.EmbedRequest(pixels=pixels((4, 4, 3))), "axes"),
        (pb.EmbedRequest(pixels=pixels((1, 4, 4, 3), size=47)), "48 bytes"),
        (pb.EmbedRequest(pixels=pixels((1, -4, -4, 3), size=48)), "axes"),
        (pb.EmbedRequest(pixels=pixels((1 << 40, 1 << 40, 1 << 40, 3), size=1)), "bytes"),
        (pb.EmbedRequest(pixels=pixels((1, 4, 4, 3), tensor_pb2.FLOAT32)), "uint8"),
        (request_of(b"\x2a\x02\x10\x4d"), "dtype 77"),
        (request_of(b"\x32\x01\x63"), "99"),
        (pb.EmbedRequest(pixels=pixels((1, 4, 4, 3)), dtype=tensor_pb2.INT64), "dtype"),
        (pb.EmbedRequest(pixels=pixels((1, 4, 4, 3)), dims=9), "at most 8"),
        (pb.EmbedRequest(pixels=pixels((1, 4, 4, 3)), outputs=[pb.CLASS] * 17), "16 outputs"),
        (pb.EmbedRequest(pixels=pixels((1, 4, 4, 3)), request_id="x" * 257), "256 char"),
    ],
)
def test_malformed_requests_are_the_callers_fault(stub, request_, message):
    error = failure(stub.Embed, request_)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert details(error) == ("INVALID_INPUT", None)
    assert message in error.details()


@pytest.mark.parametrize(
    "request_",
    [
        pb.EmbedRequest(model="other", pixels=pixels((1, 4, 4, 3))),
        pb.EmbedRequest(model="tiny", version="7", pixels=pixels((1, 4, 4, 3))),
        pb.EmbedRequest(pixels=pixels((1, 4, 4, 3)), outputs=[pb.OOD_SCORE]),
        pb.EmbedRequest(pixels=pixels((1, 4, 4, 3)), outputs=[pb.TOKENS]),
    ],
)
def test_what_is_not_there_is_not_found(stub, request_):
    error = failure(stub.Embed, request_)
    assert error.code() == grpc.StatusCode.NOT_FOUND
    assert details(error) == ("NOT_FOUND", None)


def test_a_long_name_does_not_hide_the_failure(stub):
    error = failure(stub.Embed, pb.EmbedRequest(model="é" * 100_000))
    assert error.code() == grpc.StatusCode.NOT_FOUND
    assert details(error) == ("NOT_FOUND", None)


class Held:
    """A session that begins to run only when it may."""

    def __init__(self, model):
        self.may_run = threading.Event()
        self.runs = 0
        session = model.crew.sessions[0]
        self._original, session.run = session.run, self.run

    def run(self, images, outputs):
        self.runs += len(images)
        assert self.may_run.wait(20)
        return self._original(images, outputs)


@pytest.fixture
def held(tiny_models, tmp_path, channel):
    """A server whose model waits, with room for 8 images, and a stub to it."""
    limits = BatchLimits(4, 8)
    config = ServerConfig(
        models=tiny_models,
        data_dir=tmp_path / "var",
        bind="127.0.0.1:0",
        engine=EngineConfig(limits),
        max_images=6,
        max_message_bytes=4096,
    )
    server = Server(config)
    address = f"127.0.0.1:{server.start()}"
    session = Held(server.engine.get("tiny"))
    yield embedding_pb2_grpc.EmbeddingServiceStub(channel(address)), session, server
    session.may_run.set()
    server.stop(10)


def four(n=4):
    return pb.EmbedRequest(pixels=pixels((n, 4, 4, 3)))


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def fill(stub, session, server):
    """One batch runs and the line is full; returns the calls."""
    calls = [stub.Embed.future(four())]
    wait_for(lambda: session.runs == 4)
    calls += [stub.Embed.future(four()) for _ in range(2)]
    batcher = server.engine.get("tiny").worker.batcher
    wait_for(lambda: batcher.queued_images == 8)
    return calls


def test_a_full_queue_is_resource_exhausted_with_a_hint_to_retry(held):
    stub, session, server = held
    calls = fill(stub, session, server)
    error = failure(stub.Embed, four())
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert details(error) == ("QUEUE_FULL", 0.05)
    session.may_run.set()
    for call in calls:
        assert len(vectors(call.result(10).embeddings)) == 4


def test_a_passed_deadline_is_never_executed(held):
    stub, session, server = held
    running = stub.Embed.future(four())
    wait_for(lambda: session.runs == 4)
    error = failure(stub.Embed, four(2), timeout=0.1)
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    wait_for(lambda: server.engine.get("tiny").worker.batcher.queued_images == 0)
    session.may_run.set()
    running.result(10)
    stub.Embed(four(1))
    assert session.runs == 5


def test_a_cancelled_call_is_never_executed(held):
    stub, session, server = held
    running = stub.Embed.future(four())
    wait_for(lambda: session.runs == 4)
    waiting = stub.Embed.future(four(2))
    batcher = server.engine.get("tiny").worker.batcher
    wait_for(lambda: batcher.queued_images == 2)
    waiting.cancel()
    wait_for(lambda: batcher.queued_images == 0)
    session.may_run.set()
    running.result(10)
    stub.Embed(four(1))
    assert session.runs == 5


def test_too_many_images_or_bytes_are_message_too_large(held):
    stub, session, _ = held
    session.may_run.set()
    for request in (four(7), four(100)):
        error = failure(stub.Embed, request)
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert details(error) == ("MESSAGE_TOO_LARGE", None)


def test_what_is_not_ours_says_only_its_type(held, caplog):
    stub, _, server = held

    def broken(images, outputs):
        raise RuntimeError("secret path")

    server.engine.get("tiny").crew.sessions[0].run = broken
    error = failure(stub.Embed, four(1))
    assert error.code() == grpc.StatusCode.INTERNAL
    assert details(error) == ("INTERNAL", None)
    assert "secret" not in error.details()
    assert "secret path" in caplog.text
    reply = stub.Embed(four(2))
    assert [e.status.code for e in reply.errors] == [code_pb2.INTERNAL] * 2
    assert "secret" not in reply.errors[0].status.message
