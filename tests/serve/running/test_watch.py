"""A server whose engine hangs: health follows the canary, callers are told, it comes back."""

import logging
import threading
import time

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from embedkit.errors import QueueFull
from embedkit.serve.answer import Query
from embedkit.serve.batcher import BatchLimits
from embedkit.serve.config import ServerConfig
from embedkit.serve.engine import Engine, EngineConfig
from embedkit.serve.running.watch import Watch
from embedkit.serve.server import Server
from embedkit.wire.codec import encode_tensor
from embedkit.wire.proto import embedding_pb2, embedding_pb2_grpc

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Hanging:
    """Sessions of a model that do not return until the test is over."""

    def __init__(self):
        self.ends = threading.Event()
        self.began = threading.Event()

    def take(self, model):
        model.crew.batch_s = 0.0
        for session in model.crew.sessions:
            session.run = self.run_of(session.run)

    def run_of(self, original):
        def run(images, outputs):
            self.began.set()
            assert self.ends.wait(30)
            return original(images, outputs)

        return run


@pytest.fixture
def hanging():
    hanging = Hanging()
    yield hanging
    hanging.ends.set()


@pytest.fixture
def engine(tiny_models):
    engine = Engine(EngineConfig(BatchLimits(4, 16), threads=1))
    engine.load(tiny_models / "tiny" / "1")
    yield engine
    engine.close(10)


def test_a_stuck_engine_is_noticed_restarted_and_serves_again(
    tiny_models, tmp_path, channel, images, hanging, caplog
):
    caplog.set_level(logging.WARNING)
    config = ServerConfig(
        models=tiny_models,
        data_dir=tmp_path / "var",
        bind="127.0.0.1:0",
        canary_s=0.05,
        canary_limit_s=0.5,
    )
    server = Server(config)
    open_channel = channel(f"127.0.0.1:{server.start()}")
    try:
        health = health_pb2_grpc.HealthStub(open_channel)
        states = health.Watch(health_pb2.HealthCheckRequest(), timeout=30)
        assert next(states).status == SERVING
        stub = embedding_pb2_grpc.EmbeddingServiceStub(open_channel)
        request = embedding_pb2.EmbedRequest(pixels=encode_tensor(images))
        hanging.take(server.engine.get())
        waiting = [stub.Embed.future(request, timeout=20) for _ in range(3)]
        assert next(states).status == NOT_SERVING
        for call in waiting:
            error = call.exception(20)
            assert error.code() == grpc.StatusCode.UNAVAILABLE
            details = {d.TypeName(): d for d in rpc_status.from_call(error).details}
            retry = error_details_pb2.RetryInfo()
            assert details["google.rpc.RetryInfo"].Unpack(retry)
            assert retry.retry_delay.ToTimedelta().total_seconds() > 0
        assert next(states).status == SERVING
        reply = stub.Embed(request, timeout=20)
        assert len(reply.embeddings.data) == 5 * 8 * 4
        assert b"embedkit_engine_restarts" in server.metrics.render()
        assert server.engine.get().crew.restarts == 1
        states.cancel()
    finally:
        hanging.ends.set()
        server.stop(5)
    assert "fails its canary" in caplog.text


def test_a_long_line_is_not_a_stuck_engine(tiny_models, images, monkeypatch):
    """The line is full all the time and takes longer than a canary may."""
    engine = Engine(EngineConfig(BatchLimits(1, 64), threads=1))
    model, ended, shed = engine.load(tiny_models / "tiny" / "1"), threading.Event(), []
    session = model.crew.sessions[0]
    original = session.run
    monkeypatch.setattr(session, "run", lambda *args: (time.sleep(0.03), original(*args))[1])
    told, waited = [], []
    watch = Watch(lambda: engine.models, told.append, every_s=0.01, limit_s=0.9)

    def load():
        while not ended.is_set():
            try:
                waited.append(model.infer(Query(images[:4])).queue_s)
            except QueueFull as error:
                shed.append(error)
                ended.wait(0.01)

    callers = [threading.Thread(target=load) for _ in range(20)]
    for caller in callers:
        caller.start()
    watch.start()
    time.sleep(1.2)
    watch.stop()
    ended.set()
    for caller in callers:
        caller.join(10)
    engine.close(10)
    assert shed
    assert max(waited) > 0.9
    assert told == []
    assert model.crew.restarts == 0


def test_health_waits_for_the_canary_and_restarts_become_rarer(engine, hanging, monkeypatch):
    """An engine that hangs again after each restart: it is restarted after 1, 2, 4 failures."""
    told = []
    watch = Watch(lambda: engine.models, told.append, limit_s=0.05)
    model = engine.get()
    assert watch.look()
    hanging.take(model)
    restart, restarts = model.crew.restart, []

    def restart_in_vain():
        restarts.append(len(rounds))
        restart()
        hanging.take(model)

    monkeypatch.setattr(model.crew, "restart", restart_in_vain)
    rounds = []
    for _ in range(5):
        rounds.append(watch.look())
    assert restarts == [0, 1, 3]
    assert not any(rounds)
    assert told == [False]
    monkeypatch.undo()
    hanging.ends.set()
    end = time.monotonic() + 10
    while model.worker.longest_s:  # what hung comes back by itself
        assert time.monotonic() < end
        time.sleep(0.001)
    model.crew.batch_s = 1.0
    assert watch.look()
    assert len(restarts) == model.crew.restarts == 3
    assert told == [False, True]


def test_a_restart_that_fails_leaves_the_others_watched(
    engine, tiny_models, write_tiny, caplog
):
    write_tiny(tiny_models, name="other")
    other = engine.load(tiny_models / "other" / "1")
    told = []
    watch = Watch(lambda: engine.models, told.append, limit_s=5)

    def broken(images, outputs):
        raise RuntimeError("device lost")

    other.crew.sessions[0].run = broken
    graph = other.bundle.path / "model.onnx"
    moved = graph.rename(graph.with_suffix(".away"))
    assert not watch.look()
    assert "could not be restarted" in caplog.text
    moved.rename(graph)
    assert watch.look()
    assert told == [False, True]
    assert other.crew.restarts == 1
    assert engine.get("tiny").crew.restarts == 0


def test_a_model_that_is_being_unloaded_is_not_ill(engine):
    told = []
    watch = Watch(lambda: engine.models, told.append, limit_s=5)
    engine.get().stop(10)
    assert watch.look()
    assert told == []


def test_nothing_is_told_after_the_end(engine, hanging):
    told = []
    watch = Watch(lambda: engine.models, told.append, every_s=0.01, limit_s=0.1)
    watch.start()
    hanging.take(engine.get())
    assert hanging.began.wait(10)
    watch.stop()
    hanging.ends.set()
    time.sleep(0.2)
    assert told == []


def test_a_round_that_fails_is_not_the_last(engine, caplog):
    asked = threading.Semaphore(0)

    def models():
        asked.release()
        raise RuntimeError("changed during iteration")

    watch = Watch(models, lambda is_well: None, every_s=0.001, limit_s=5)
    watch.start()
    for _ in range(3):
        assert asked.acquire(timeout=10)
    watch.stop()
    assert "round of the watchdog failed" in caplog.text
