"""Calls that answer later, over real channels: on the transport's own loop, and on threads."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from embedkit.errors import NotFound, QueueFull
from embedkit.serve.direct import is_supported
from embedkit.serve.handlers import HandlerPool
from embedkit.serve.observe.record import CallRecord
from embedkit.serve.services import guard as guard_module
from embedkit.serve.services.guard import Guard
from embedkit.wire.proto import model_pb2
from embedkit.wire.status import from_rpc_error, retry_delay_s

METHOD = "/embedkit.v1.Later/Ask"


class Later:
    """A method whose calls are kept until the test ends them."""

    def __init__(self):
        self.calls, self.arrived = [], threading.Semaphore(0)
        self.cancelled = threading.Event()

    def begin(self, request, call):
        if request.name == "missing":
            raise NotFound("no such model")
        if request.name == "broken":
            raise KeyError("secret")
        if request.name == "echo":
            call.reply(model_pb2.Model(name="echo"))
            return
        call.watch(self.cancelled.set)
        self.calls.append((request, call))
        self.arrived.release()

    def take(self):
        assert self.arrived.acquire(timeout=10)
        return self.calls.pop(0)


class Running:
    """A server with the method, and a caller of it."""

    def __init__(self, channel):
        self.later, self.records = Later(), []
        self.pool = HandlerPool(4)
        self.server = grpc.server(self.pool)
        self.guard = Guard(
            self.server, max_message_bytes=1 << 20, pool=self.pool, record=self.records.append
        )
        parse = model_pb2.GetModelRequest.FromString
        self.guard.add_method("embedkit.v1.Later", "Ask", self.later.begin, parse)
        port = self.server.add_insecure_port("127.0.0.1:0")
        self.guard.start()
        self.call = channel(f"127.0.0.1:{port}").unary_unary(METHOD)

    def ask(self, name, **options):
        return self.call.future(ask(name), **{"timeout": 20, **options})


@pytest.fixture(params=["direct", "threads"])
def running(request, channel, monkeypatch):
    if request.param == "threads":
        monkeypatch.setattr(guard_module, "is_supported", lambda server: False)
    made = Running(channel)
    yield made
    made.server.stop(5).wait()
    made.pool.shutdown()


def ask(name):
    return model_pb2.GetModelRequest(name=name).SerializeToString()


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_this_version_of_grpcio_is_supported():
    assert is_supported(grpc.server(ThreadPoolExecutor(1)))


def test_a_call_is_answered_from_another_thread_and_recorded(running):
    future = running.ask("a")
    request, call = running.later.take()
    assert request.name == "a"
    assert 10 < call.time_left() <= 21  # clocks of one machine differ by a little
    assert not future.done()
    threading.Thread(target=call.reply, args=(model_pb2.Model(name="b"),)).start()
    assert model_pb2.Model.FromString(future.result(10)).name == "b"
    wait_for(lambda: running.records)  # the thread that answers records it afterwards
    (record,) = running.records
    assert isinstance(record, CallRecord)
    assert (record.rpc, record.code, record.request_bytes) == ("Later/Ask", "OK", len(ask("a")))


def test_a_call_without_a_deadline_has_no_time_left_to_tell(running):
    future = running.ask("a", timeout=None)
    _, call = running.later.take()
    assert call.time_left() is None
    call.reply(model_pb2.Model())
    future.result(10)


def test_answers_may_come_in_any_order_and_calls_end_once(running):
    futures = [running.ask(f"{i}") for i in range(3)]
    taken = [running.later.take() for _ in futures]
    for request, call in reversed(taken):
        call.reply(model_pb2.Model(name=request.name))
        call.reply(model_pb2.Model(name="again"))
        call.fail(NotFound("too late"))
    names = [model_pb2.Model.FromString(future.result(10)).name for future in futures]
    assert names == ["0", "1", "2"]
    wait_for(lambda: len(running.records) == 3)


def test_failures_carry_reason_details_and_retry_delay(running):
    future = running.ask("a")
    _, call = running.later.take()
    call.fail(QueueFull("expected room, got none"))
    error = future.exception(10)
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert from_rpc_error(error).reason == "QUEUE_FULL"
    assert retry_delay_s(error) == pytest.approx(QueueFull.retry_s)
    wait_for(lambda: running.records)
    assert running.records[0].details == "expected room, got none"


@pytest.mark.parametrize(
    ("name", "code"),
    [("missing", grpc.StatusCode.NOT_FOUND), ("broken", grpc.StatusCode.INTERNAL)],
)
def test_what_a_method_raises_is_the_answer(running, name, code):
    error = running.ask(name).exception(10)
    assert error.code() == code
    assert "secret" not in error.details()


def test_bytes_that_are_no_message_and_large_ones_are_refused(running):
    error = running.call.future(b"\xff\xff\xff", timeout=10).exception(10)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    error = running.ask("x" * (1 << 20)).exception(10)
    assert from_rpc_error(error).reason == "MESSAGE_TOO_LARGE"


def test_a_message_too_large_to_parse_on_the_loop_is_parsed_elsewhere(running):
    future = running.ask("y" * (1 << 19))
    request, call = running.later.take()
    assert len(request.name) == 1 << 19
    call.reply(model_pb2.Model())
    future.result(10)


@pytest.mark.parametrize("how", ["cancel", "deadline"])
def test_a_caller_who_leaves_is_noticed_and_a_late_answer_does_no_harm(running, how):
    future = running.ask("a", timeout=0.3 if how == "deadline" else 20)
    _, call = running.later.take()
    if how == "cancel":
        future.cancel()
    assert running.later.cancelled.wait(10)
    assert call.watch(lambda: None) is False
    call.reply(model_pb2.Model())
    after = running.ask("echo")
    assert model_pb2.Model.FromString(after.result(10)).name == "echo"


def test_draining_waits_for_calls_that_answer_later(running):
    future = running.ask("a")
    _, call = running.later.take()
    assert not running.guard.drain(0.2)
    assert running.ask("b").exception(10).code() == grpc.StatusCode.UNAVAILABLE
    call.reply(model_pb2.Model(name="a"))
    assert running.guard.drain(5)
    assert model_pb2.Model.FromString(future.result(10)).name == "a"


def test_stopping_lets_a_running_call_finish(running):
    future = running.ask("a")
    _, call = running.later.take()
    stopped = running.server.stop(10)
    assert not stopped.wait(0.2)
    call.reply(model_pb2.Model(name="a"))
    assert model_pb2.Model.FromString(future.result(10)).name == "a"
    assert stopped.wait(10)


def test_stopping_cuts_off_a_call_that_never_ends(running):
    future = running.ask("a")
    _, call = running.later.take()
    assert running.server.stop(0.1).wait(10)
    assert future.exception(10) is not None
    call.reply(model_pb2.Model())


def test_many_calls_from_many_threads_are_all_answered(running):
    stop = threading.Event()

    def answer():
        while not stop.is_set():
            if running.later.arrived.acquire(timeout=0.05):
                request, call = running.later.calls.pop(0)
                call.reply(model_pb2.Model(name=request.name))

    answering = [threading.Thread(target=answer) for _ in range(2)]
    for thread in answering:
        thread.start()
    with ThreadPoolExecutor(4) as callers:
        names = [f"{i}" for i in range(200)]
        replies = list(callers.map(lambda n: running.call(ask(n), timeout=20), names))
    stop.set()
    for thread in answering:
        thread.join()
    assert [model_pb2.Model.FromString(r).name for r in replies] == names
