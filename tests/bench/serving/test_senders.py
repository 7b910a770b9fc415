"""Senders over real channels: unary against our server, the stream against a server of ours."""

import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

from embedkit.bench.serving.load import run_closed
from embedkit.bench.serving.senders import StreamSender, UnarySender, make_request
from embedkit.errors import Unavailable
from embedkit.serve.server import running_server
from embedkit.wire.proto import embedding_pb2, embedding_pb2_grpc

IMAGE = np.zeros((1, 32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def address(light, tmp_path_factory):
    with running_server(
        models=light.parent.parent, data_dir=tmp_path_factory.mktemp("var")
    ) as found:
        yield found


class Gather:
    """Collects replies and waits for a number of them."""

    def __init__(self):
        self.replies, self._arrived = [], threading.Semaphore(0)

    def __call__(self, reply):
        self.replies.append(reply)
        self._arrived.release()

    def wait(self, count):
        for _ in range(count):
            assert self._arrived.acquire(timeout=10)


def test_unary_calls_are_answered_and_looked_at_now_and_then(address):
    sender, gather = UnarySender(address, make_request("light", IMAGE)), Gather()
    for _ in range(16):
        sender.send(gather)
    gather.wait(16)
    sender.close()
    assert {reply.code for reply in gather.replies} == {"OK"}
    assert len([reply for reply in gather.replies if reply.batch_size]) == 1


def test_a_refusal_is_told_by_its_status(address):
    sender, gather = UnarySender(address, make_request("unknown", IMAGE)), Gather()
    sender.send(gather)
    gather.wait(1)
    sender.close()
    assert gather.replies[0].code == "NOT_FOUND"


def test_a_closed_loop_over_a_real_server(address):
    sender = UnarySender(address, make_request("light", IMAGE))
    seen = run_closed(sender, in_flight=8, seconds=0.3, warm_s=0.1)
    sender.close()
    assert seen.calls > 10
    assert seen.codes.keys() == {"OK"}


def test_no_server_is_unavailable(monkeypatch):
    monkeypatch.setattr("embedkit.bench.serving.senders._CONNECT_S", 0.2)
    with pytest.raises(Unavailable, match="expected a server"):
        UnarySender("127.0.0.1:1", b"")


class Backwards(embedding_pb2_grpc.EmbeddingServiceServicer):
    """Answers some messages at a time in reverse order; breaks at a model ``break``."""

    def __init__(self):
        self.seen, self.group = [], 4

    def EmbedStream(self, messages, context):  # noqa: N802
        held = []
        for message in messages:
            if message.model == "break":
                context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
            self.seen.append(message)
            held.append(message)
            if len(held) == self.group:
                for one in reversed(held):
                    reply = embedding_pb2.EmbedResponse(request_id=one.request_id)
                    reply.timing.batch_size = 16
                    if one.model == "refuse":
                        reply.status.code = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
                    yield reply
                held.clear()


@pytest.fixture
def stream():
    pool = ThreadPoolExecutor(4)
    server, servicer = grpc.server(pool), Backwards()
    embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", servicer
    server.stop(0).wait()
    pool.shutdown()


def test_a_stream_matches_answers_that_come_out_of_order(stream):
    address, servicer = stream
    sender, order = StreamSender(address, make_request("light", IMAGE)), []
    gather = Gather()
    for i in range(8):

        def done(reply, i=i):
            order.append(i)
            gather(reply)

        sender.send(done)
    gather.wait(8)
    sender.close()
    assert order == [3, 2, 1, 0, 7, 6, 5, 4]
    assert {reply.batch_size for reply in gather.replies} == {16}
    for message in servicer.seen:
        assert message.pixels.shape == [1, 32, 32, 3]


def test_a_closed_loop_over_a_stream_sends_ids_again_but_never_twice_at_a_time(stream):
    address, servicer = stream
    servicer.group = 1
    sender = StreamSender(address, make_request("light", IMAGE))
    seen = run_closed(sender, in_flight=8, seconds=0.2, warm_s=0.05)
    sender.close()
    assert seen.calls > 8
    assert len({message.request_id for message in servicer.seen}) <= 8


def test_a_message_that_is_refused_and_a_stream_that_breaks(stream):
    address, _ = stream
    sender, gather = StreamSender(address, make_request("refuse", IMAGE)), Gather()
    for _ in range(4):
        sender.send(gather)
    gather.wait(4)
    sender.close()
    assert {reply.code for reply in gather.replies} == {"RESOURCE_EXHAUSTED"}
    sender, gather = StreamSender(address, make_request("break", IMAGE)), Gather()
    sender.send(gather)
    gather.wait(1)
    sender.send(gather)  # after the end it answers at once
    gather.wait(1)
    sender.close()
    assert {reply.code for reply in gather.replies} == {"UNAVAILABLE"}
