"""What happens before a method runs, over a real channel with bare bytes."""

import threading
import time

import grpc
import pytest

from embedkit.errors import NotFound
from embedkit.serve.handlers import HandlerPool
from embedkit.serve.observe.record import CallRecord
from embedkit.serve.services.failure import answering
from embedkit.serve.services.guard import Guard
from embedkit.wire.proto import model_pb2, model_pb2_grpc
from embedkit.wire.status import from_rpc_error


class Echo(model_pb2_grpc.ModelServiceServicer):
    """Answers, fails on purpose, or fails by accident, by the name asked for."""

    def __init__(self):
        self.began, self.may_answer = threading.Event(), threading.Event()
        self.may_answer.set()

    @answering
    def GetModel(self, request, context):  # noqa: N802
        self.began.set()
        assert self.may_answer.wait(10)
        if request.name == "missing":
            raise NotFound("no such model")
        if request.name == "broken":
            raise KeyError("secret")
        return model_pb2.Model(name=request.name)


@pytest.fixture
def served(channel):
    """Call GetModel with bytes; also the servicer, the guard and the records."""
    servicer = Echo()
    records: list[CallRecord] = []
    pool = HandlerPool(2, backlog=1)
    server = grpc.server(pool)
    guard = Guard(server, max_message_bytes=100, pool=pool, record=records.append)
    model_pb2_grpc.add_ModelServiceServicer_to_server(servicer, guard)
    port = server.add_insecure_port("127.0.0.1:0")
    guard.start()
    bare = channel(f"127.0.0.1:{port}")
    yield bare.unary_unary("/embedkit.v1.ModelService/GetModel"), servicer, guard, records
    servicer.may_answer.set()
    server.stop(5).wait()
    pool.shutdown()


def ask(name):
    return model_pb2.GetModelRequest(name=name).SerializeToString()


def failure(call, data):
    with pytest.raises(grpc.RpcError) as caught:
        call(data, timeout=10)
    return caught.value


def test_a_request_goes_through_and_is_recorded(served):
    call, _, _, records = served
    assert model_pb2.Model.FromString(call(ask("tiny"))).name == "tiny"
    (record,) = records
    assert (record.rpc, record.code) == ("ModelService/GetModel", "OK")
    assert record.request_bytes == len(ask("tiny"))
    assert 0 < record.seconds < 10


def test_bytes_that_are_no_message_are_the_callers_fault(served):
    call, _, _, records = served
    error = failure(call, b"\xff\xff\xff")
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "protobuf" in error.details()
    assert (records[0].code, records[0].reason) == ("INVALID_ARGUMENT", "INVALID_INPUT")


def test_an_empty_message_is_a_message(served):
    assert served[0](b"") == b""


def test_a_large_message_is_refused_with_its_reason(served):
    call, *_ = served
    error = failure(call, ask("x" * 100))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert from_rpc_error(error).reason == "MESSAGE_TOO_LARGE"


def test_a_draining_server_sends_calls_elsewhere(served):
    call, _, guard, _ = served
    assert guard.drain(1)
    error = failure(call, ask("tiny"))
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert from_rpc_error(error).reason == "UNAVAILABLE"


def test_errors_are_recorded_with_reason_and_message(served):
    call, _, _, records = served
    assert failure(call, ask("missing")).code() == grpc.StatusCode.NOT_FOUND
    assert (records[0].reason, records[0].details) == ("NOT_FOUND", "no such model")


def test_accidents_are_internal_and_logged_but_not_told(served, caplog):
    call, *_ = served
    error = failure(call, ask("broken"))
    assert error.code() == grpc.StatusCode.INTERNAL
    assert "secret" not in error.details()
    assert "KeyError: 'secret'" in caplog.text
    assert "Echo.GetModel" in caplog.text


def test_calls_beyond_the_backlog_are_refused_at_once(served):
    call, servicer, _, records = served
    servicer.may_answer.clear()
    calls = [call.future(ask("tiny"), timeout=20) for _ in range(8)]
    # Two run and one waits; the others are answered while those are stuck.
    deadline = time.monotonic() + 10
    while sum(one.done() for one in calls) < 5:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    refused = [one.exception() for one in calls if one.done()]
    assert [from_rpc_error(error).reason for error in refused] == ["QUEUE_FULL"] * 5
    servicer.may_answer.set()
    assert sum(one.exception(10) is None for one in calls) == 3
    assert sum(record.reason == "QUEUE_FULL" for record in records) == 5


def test_draining_waits_for_running_calls_and_for_quiet(served):
    call, servicer, guard, _ = served
    servicer.may_answer.clear()
    running = call.future(ask("tiny"))
    assert servicer.began.wait(10)
    assert not guard.drain(0.2)
    servicer.may_answer.set()
    assert guard.drain(5)
    assert model_pb2.Model.FromString(running.result(5)).name == "tiny"
