"""EmbedStream over a real channel: order, window, failures, ends."""

import contextlib
import queue
import subprocess
import sys
import threading
import time

import grpc
import numpy as np
import pytest
from google.rpc import code_pb2

from embedkit.client.sync import connect
from embedkit.serve.batcher import BatchLimits
from embedkit.serve.config import ServerConfig
from embedkit.serve.engine import EngineConfig
from embedkit.serve.server import Server
from embedkit.wire.codec import decode_tensor, encode_tensor
from embedkit.wire.proto import embedding_pb2 as pb
from embedkit.wire.proto import embedding_pb2_grpc
from embedkit.wire.status import from_rpc_error, from_status


class Talk:
    """A stream of which the test sends and reads one message at a time."""

    def __init__(self, stub, **options):
        self._queue = queue.SimpleQueue()
        self.call = stub.EmbedStream(iter(self._queue.get, None), **options)

    def send(self, request_id, images, **fields):
        fields = {"pixels": encode_tensor(images), **fields}
        self._queue.put(pb.EmbedRequest(request_id=request_id, **fields))

    def half_close(self):
        self._queue.put(None)

    def read(self):
        return next(self.call)

    def end(self):
        """Status code of the stream, and what it still answered."""
        rest = []
        with contextlib.suppress(grpc.RpcError):
            rest.extend(self.call)
        return self.call.code(), rest


@pytest.fixture
def start(tiny_models, tmp_path, channel):
    """Start a server; returns it with a stub and its address."""
    servers = []

    def start_one(**values):
        base = {"models": tiny_models, "data_dir": tmp_path / "var", "bind": "127.0.0.1:0"}
        server = Server(ServerConfig(**{**base, **values}))
        servers.append(server)
        address = f"127.0.0.1:{server.start()}"
        return server, embedding_pb2_grpc.EmbeddingServiceStub(channel(address)), address

    yield start_one
    for server in servers:
        server.stop(5)


@pytest.fixture
def held(start, hold):
    """A server whose model waits until it may run: its session, a stub, the server."""
    server, stub, _ = start(stream_window=4, engine=EngineConfig(BatchLimits(8, 64)))
    session = hold(server.engine.get())
    yield session, stub, server
    session.may_run.set()


def queued(server):
    return server.engine.get().worker.batcher.queued_images


def test_answers_are_those_of_embed_and_carry_the_id(start, images):
    _, stub, _ = start()
    one = stub.Embed(pb.EmbedRequest(pixels=encode_tensor(images)))
    requests = [
        pb.EmbedRequest(request_id=f"r{i}", pixels=encode_tensor(images[i : i + 1]))
        for i in range(5)
    ]
    replies = {reply.request_id: reply for reply in stub.EmbedStream(iter(requests))}
    assert sorted(replies) == [f"r{i}" for i in range(5)]
    rows = [decode_tensor(one.embeddings, axes="n d", dtypes=("float32",))]
    for i in range(5):
        got = decode_tensor(replies[f"r{i}"].embeddings, axes="n d", dtypes=("float32",))
        np.testing.assert_allclose(got[0], rows[0][i], atol=1e-6)
        assert replies[f"r{i}"].model_digest == one.model_digest
        assert not replies[f"r{i}"].HasField("status")


def test_a_refused_request_overtakes_those_under_way_and_the_stream_goes_on(
    held, images, wait_for
):
    session, stub, _ = held
    talk = Talk(stub)
    talk.send("slow", images[:1])
    wait_for(lambda: session.runs == 1)
    talk.send("wrong", images[:1], model="other")
    reply = talk.read()
    assert (reply.request_id, reply.status.code) == ("wrong", code_pb2.NOT_FOUND)
    assert from_status(reply.status).reason == "NOT_FOUND"
    session.may_run.set()
    assert talk.read().request_id == "slow"
    talk.send("after", images[:2])
    assert talk.read().request_id == "after"
    talk.half_close()
    assert talk.end() == (grpc.StatusCode.OK, [])


def test_a_full_window_holds_the_sender_up_until_answers_are_sent(held, images, wait_for):
    session, stub, server = held
    talk = Talk(stub)
    talk.send("r0", images[:1])
    wait_for(lambda: session.runs == 1)
    for i in range(1, 12):
        talk.send(f"r{i}", images[:1])
    wait_for(lambda: queued(server) == 3)
    time.sleep(0.1)  # nothing else tells that nothing more is read
    assert queued(server) == 3
    session.may_run.set()
    talk.half_close()
    code, replies = talk.end()
    assert code == grpc.StatusCode.OK
    assert sorted(r.request_id for r in replies) == sorted(f"r{i}" for i in range(12))


def test_a_window_is_full_of_bytes_too(start, images, hold, wait_for):
    server, stub, _ = start(max_message_bytes=4096, stream_window=1000)
    session = hold(server.engine.get())
    many = np.repeat(images[:1], 40, axis=0)  # 1920 bytes: the third fills the window
    talk = Talk(stub)
    for i in range(6):
        talk.send(f"r{i}", many)
    wait_for(lambda: session.runs + queued(server) == 120)
    time.sleep(0.1)
    assert session.runs + queued(server) == 120
    session.may_run.set()
    talk.half_close()
    assert len(talk.end()[1]) == 6


def test_who_does_not_read_holds_only_itself_up(start, wait_for):
    server, stub, _ = start(stream_window=2)
    big = np.zeros((1000, 4, 4, 3), np.uint8)
    talk = Talk(stub)
    for i in range(200):
        talk.send(f"r{i}", big)  # 200 answers of 32 kB are more than the transport buffers
    wait_for(lambda: server.metrics.render().count(b"EmbedStream") > 0)

    def answered():
        return b'code="OK",rpc="EmbeddingService/EmbedStream"} 200.0' in server.metrics.render()

    for _ in range(20):
        stub.Embed(pb.EmbedRequest(pixels=encode_tensor(big[:1])), timeout=5)
    assert not answered()
    talk.half_close()
    code, replies = talk.end()
    assert (code, len(replies)) == (grpc.StatusCode.OK, 200)


def test_a_cancelled_stream_takes_its_queued_work_along(held, images, wait_for):
    session, stub, server = held
    talk = Talk(stub)
    talk.send("running", images[:1])
    wait_for(lambda: session.runs == 1)
    talk.send("queued", images[:3])
    wait_for(lambda: queued(server) == 3)
    talk.call.cancel()
    wait_for(lambda: queued(server) == 0)
    session.may_run.set()
    assert len(stub.Embed(pb.EmbedRequest(pixels=encode_tensor(images[:1]))).embeddings.data)
    assert session.runs == 2
    wait_for(lambda: server._guard.streams == 0 and not server._guard._running)


CALLER = """
import sys, grpc
from embedkit.wire.proto import embedding_pb2 as pb, embedding_pb2_grpc
def requests():
    yield pb.EmbedRequest.FromString(bytes.fromhex(sys.argv[2]))
    sys.stdin.read()
stub = embedding_pb2_grpc.EmbeddingServiceStub(grpc.insecure_channel(sys.argv[1]))
list(stub.EmbedStream(requests()))
"""


def test_a_caller_that_dies_takes_its_queued_work_along(start, images, hold, wait_for):
    server, stub, address = start()
    session = hold(server.engine.get())
    running = Talk(stub)
    running.send("running", images[:1])
    wait_for(lambda: session.runs == 1)
    request = pb.EmbedRequest(pixels=encode_tensor(images[:3])).SerializeToString()
    caller = subprocess.Popen(
        [sys.executable, "-c", CALLER, address, request.hex()], stdin=subprocess.PIPE
    )
    try:
        wait_for(lambda: queued(server) == 3)
    finally:
        caller.kill()
        caller.communicate()
    wait_for(lambda: queued(server) == 0 and server._guard.streams == 1)
    session.may_run.set()
    assert running.read().request_id == "running"


def test_a_deadline_ends_the_stream_and_its_queued_work(held, images, wait_for):
    session, stub, server = held
    talk = Talk(stub, timeout=0.5)
    talk.send("running", images[:1])
    wait_for(lambda: session.runs == 1)
    talk.send("queued", images[:3])
    assert talk.end() == (grpc.StatusCode.DEADLINE_EXCEEDED, [])
    wait_for(lambda: queued(server) == 0)
    assert session.runs == 1


def test_a_half_closed_stream_finishes_what_is_under_way(held, images, wait_for):
    session, stub, server = held
    talk = Talk(stub)
    for i in range(3):
        talk.send(f"r{i}", images[:1])
    talk.half_close()
    wait_for(lambda: session.runs + queued(server) == 3)
    session.may_run.set()
    code, replies = talk.end()
    assert (code, len(replies)) == (grpc.StatusCode.OK, 3)


def test_a_stream_without_requests_ends_well(start):
    _, stub, _ = start()
    assert list(stub.EmbedStream(iter([]))) == []


def test_draining_answers_what_is_under_way_and_refuses_the_rest(held, images, wait_for):
    session, stub, server = held
    talk, idle = Talk(stub), Talk(stub)
    idle.send("first", images[:1], model="other")
    idle.read()
    talk.send("running", images[:1])
    wait_for(lambda: session.runs == 1)
    stopping = threading.Thread(target=server.stop, args=(10,))
    stopping.start()
    assert idle.end() == (grpc.StatusCode.UNAVAILABLE, [])
    assert from_rpc_error(idle.call).reason == "UNAVAILABLE"
    talk.send("late", images[:1])
    late = talk.read()
    assert (late.request_id, late.status.code) == ("late", code_pb2.UNAVAILABLE)
    session.may_run.set()
    code, replies = talk.end()
    assert [r.request_id for r in replies] == ["running"]
    assert not replies[0].HasField("status")
    assert code == grpc.StatusCode.UNAVAILABLE
    stopping.join(10)
    assert not stopping.is_alive()


def test_streams_beyond_the_limit_are_refused_and_calls_are_not(start, images, wait_for):
    server, stub, _ = start(max_streams=2, handlers=2)
    talks = [Talk(stub) for _ in range(2)]
    for talk in talks:
        talk.send("r", images[:1])
        talk.read()
    for _ in range(3):
        refused = Talk(stub)
        code, _ = refused.end()
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert from_rpc_error(refused.call).reason == "QUEUE_FULL"
    stub.Embed(pb.EmbedRequest(pixels=encode_tensor(images)), timeout=5)
    assert b"embedkit_streams 2.0" in server.metrics.render()
    talks[0].half_close()
    assert talks[0].end()[0] == grpc.StatusCode.OK
    wait_for(lambda: server._guard.streams == 1)
    again = Talk(stub)
    again.send("r", images[:1])
    assert again.read().request_id == "r"


def test_bytes_that_are_no_message_fail_alone(start, images, channel):
    _, _, address = start()
    bare = channel(address).stream_stream("/embedkit.v1.EmbeddingService/EmbedStream")
    good = pb.EmbedRequest(request_id="good", pixels=encode_tensor(images))
    replies = bare(iter([b"\xff\xff\xff", good.SerializeToString()]))
    read = [pb.EmbedResponse.FromString(data) for data in replies]
    found = {r.request_id: r.status.code for r in read}
    assert found == {"": code_pb2.INVALID_ARGUMENT, "good": code_pb2.OK}


def test_each_request_is_recorded_like_a_call(start, images, wait_for):
    server, stub, _ = start()
    requests = [
        pb.EmbedRequest(request_id="a", pixels=encode_tensor(images)),
        pb.EmbedRequest(request_id="b"),
    ]
    list(stub.EmbedStream(iter(requests)))
    rpc = 'rpc="EmbeddingService/EmbedStream"'
    lines = (
        f'embedkit_requests_total{{code="OK",{rpc}}} 1.0',
        f'embedkit_requests_total{{code="INVALID_ARGUMENT",{rpc}}} 1.0',
        'embedkit_items_total{model="tiny",status="ok"} 5.0',
    )
    # A request is recorded after its answer has been handed on.
    wait_for(lambda: all(line in server.metrics.render().decode() for line in lines))


def test_the_client_embeds_batches_in_order(start, images):
    _, _, address = start(engine=EngineConfig(BatchLimits(4, 8)))
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, 256, (n % 7, 4, 4, 3), np.uint8) for n in range(40)]
    with connect(address) as client:
        found = list(client.embed_stream(iter(batches)))
        for rows, batch in zip(found, batches, strict=True):
            np.testing.assert_allclose(rows, client.embed(batch), atol=1e-6)


def test_no_thread_stays_behind(start, images, wait_for):
    server, stub, _ = start()
    list(stub.EmbedStream(iter([pb.EmbedRequest(pixels=encode_tensor(images))])))
    server.stop(5)
    wait_for(lambda: not [t for t in threading.enumerate() if t.name.startswith("stream")])
