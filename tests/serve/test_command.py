"""``embedkit serve`` as a process: the ready line, its speed, SIGTERM under load."""

import contextlib
import itertools
import json
import logging
import signal
import subprocess
import sys
import threading
import time
import urllib.request

import click
import grpc
import numpy as np
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from embedkit.cli.serve import command
from embedkit.errors import InvalidInput, NotFound, Unavailable
from embedkit.runtime.cores import usable_cores
from embedkit.wire.codec import encode_tensor
from embedkit.wire.proto import embedding_pb2, embedding_pb2_grpc


@contextlib.contextmanager
def process(models, data_dir, *arguments):
    words = [sys.executable, "-m", "embedkit", "serve", "--models", str(models)]
    words += ["--data-dir", str(data_dir), "--bind", "127.0.0.1:0", *arguments]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def ready(running):
    line = running.stdout.readline()
    assert line, running.stderr.read()
    return json.loads(line)


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_ready_in_under_two_seconds_and_says_where(tiny_models, tmp_path):
    with process(tiny_models, tmp_path / "var", "--metrics-bind", "127.0.0.1:0") as running:
        line = ready(running)
        with grpc.insecure_channel(line["address"]) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            status = stub.Check(health_pb2.HealthCheckRequest()).status
        # CPU seconds, because other programs on the machine must not fail this test.
        spent = psutil.Process(running.pid).cpu_times()
        seconds = spent.user + spent.system
        assert status == health_pb2.HealthCheckResponse.SERVING
        assert (line["event"], line["models"]) == ("ready", ["tiny:1"])
        assert (line["provider"], line["sessions"]) == (["CPUExecutionProvider"], 1)
        assert line["threads"] == line["decode_threads"] == usable_cores()
        assert seconds < 2.0, f"expected ready in under 2 s, got {seconds:.2f}"
        with urllib.request.urlopen(f"http://{line['metrics']}/readyz") as reply:
            assert reply.status == 200
        assert psutil.Process(running.pid).memory_info().rss < 200 << 20


def test_a_unix_socket_is_an_address_too(tiny_models, tmp_path):
    bind = f"unix:{tmp_path}/s"
    with process(tiny_models, tmp_path / "var", "--bind", bind, "--metrics-bind", "off") as it:
        assert ready(it)["address"] == bind
        with grpc.insecure_channel(bind) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            assert stub.Check(health_pb2.HealthCheckRequest()).status == 1


def test_sigterm_under_load_loses_no_accepted_call(tiny_models, tmp_path, rng):
    images = rng.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    request = embedding_pb2.EmbedRequest(pixels=encode_tensor(images))
    codes, lock = [], threading.Lock()
    with process(tiny_models, tmp_path / "var", "--metrics-bind", "off") as running:
        address = ready(running)["address"]
        with grpc.insecure_channel(address) as channel:
            stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)

            def load():
                while True:
                    try:
                        reply, code = stub.Embed(request, timeout=10), None
                        assert len(reply.embeddings.data) == 2 * 8 * 4
                    except grpc.RpcError as error:
                        code = error.code()
                    with lock:
                        codes.append(code)
                    if code is not None:
                        return

            threads = [threading.Thread(target=load) for _ in range(8)]
            for thread in threads:
                thread.start()
            wait_for(lambda: codes.count(None) > 50)
            running.send_signal(signal.SIGTERM)
            for thread in threads:
                thread.join(20)
        assert running.wait(20) == 0
    assert codes.count(None) > 8
    assert set(codes) == {None, grpc.StatusCode.UNAVAILABLE}


def test_sigterm_answers_what_is_under_way_in_streams_and_ends_them(tiny_models, tmp_path, rng):
    images = rng.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    pixels = encode_tensor(images)
    begun, ends = set(), []

    def stream(stub):
        ids = (str(n) for n in itertools.count())
        requests = (embedding_pb2.EmbedRequest(request_id=i, pixels=pixels) for i in ids)
        answered, refused = set(), set()
        try:
            for reply in stub.EmbedStream(requests, timeout=20):
                is_good = len(reply.embeddings.data) == 2 * 8 * 4
                assert is_good != bool(reply.status.code)
                (answered if is_good else refused).add(reply.request_id)
                begun.add(threading.get_ident())
        except grpc.RpcError as error:
            ends.append((error.code(), answered, refused))

    # Without the log of refusals, which would fill the pipe that nobody reads here.
    quiet = ("--metrics-bind", "off", "--access-log", "off")
    with process(tiny_models, tmp_path / "var", *quiet) as running:
        with grpc.insecure_channel(ready(running)["address"]) as channel:
            stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
            threads = [threading.Thread(target=stream, args=(stub,)) for _ in range(4)]
            for thread in threads:
                thread.start()
            wait_for(lambda: len(begun) == 4)
            running.send_signal(signal.SIGTERM)
            for thread in threads:
                thread.join(20)
        assert running.wait(20) == 0
    assert len(ends) == 4
    for code, answered, refused in ends:
        assert code == grpc.StatusCode.UNAVAILABLE
        assert answered
        # None was dropped between the last that was answered and the first that was refused.
        assert {int(i) for i in answered | refused} == set(range(len(answered) + len(refused)))


@pytest.fixture
def start(tmp_path):
    """Run the command in this process; signals and logging are put back."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    handlers = [signal.getsignal(number) for number in numbers]
    root = logging.getLogger("embedkit")
    before = (root.handlers[:], root.level, root.propagate)

    def run(models, *arguments):
        fixed = ["--data-dir", str(tmp_path / "var"), "--metrics-bind", "off"]
        fixed += ["--models", str(models), "--bind", "127.0.0.1:0"]
        command.main([*fixed, *arguments], standalone_mode=False)

    yield run
    root.handlers[:], root.level, root.propagate = before
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("--load", "other"), NotFound, "expected one of the models"),
        (("--bind", "203.0.113.1:50051"), Unavailable, "expected to bind"),
        (("--metrics-bind", "nonsense"), InvalidInput, "HOST:PORT"),
        (("--max-batch", "0"), click.BadParameter, "max-batch|x>=1"),
        (("--provider", "NoSuchProvider"), InvalidInput, "--allow-cpu-fallback"),
        (("--bulk-share", "1"), click.BadParameter, "bulk-share|0<x<1"),
    ],
)
def test_a_bad_start_says_why(tiny_models, start, arguments, error, message):
    with pytest.raises(error, match=message):
        start(tiny_models, *arguments)


def test_a_folder_without_models_is_an_error(start, tmp_path):
    with pytest.raises(NotFound, match="embedkit export"):
        start(tmp_path / "none")
    assert not (tmp_path / "var").exists()


def test_what_cannot_be_the_data_folder_is_one_line(tiny_models, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "collections").write_text("")
    for name in ("file/x", "var"):
        with process(tiny_models, tmp_path / name, "--metrics-bind", "off") as running:
            assert running.wait(20) == 2
            *logs, last = running.stderr.read().splitlines()
        assert last.startswith("error: expected a folder that can be made"), last
        assert "choose another data directory" in last
        assert not any("Traceback" in line for line in logs)


def test_the_cpu_takes_the_place_of_a_missing_provider_when_allowed(tiny_models, tmp_path):
    words = ["--provider", "NoSuchProvider", "--allow-cpu-fallback", "--sessions", "2"]
    words += ["--metrics-bind", "off", "--log-format", "json", "--threads", "3"]
    with process(tiny_models, tmp_path / "var", *words) as running:
        line = ready(running)
        assert (line["provider"], line["sessions"]) == (["CPUExecutionProvider"], 2)
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 0
        lines = [json.loads(line) for line in running.stderr.read().splitlines()]
    assert any("NoSuchProvider is not installed" in line["message"] for line in lines)
    loaded = next(line for line in lines if line["message"] == "loaded")
    assert (loaded["sessions"], loaded["threads"], loaded["prefetch"]) == (2, 3, False)


def test_logs_are_json_lines_when_asked(tiny_models, tmp_path):
    with process(
        tiny_models, tmp_path / "var", "--metrics-bind", "off", "--log-format", "json"
    ) as running:
        ready(running)
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 0
        lines = [json.loads(line) for line in running.stderr.read().splitlines()]
    loaded = next(line for line in lines if line["message"] == "loaded")
    assert (loaded["model"], loaded["provider"]) == ("tiny", "CPUExecutionProvider")


def test_the_server_needs_neither_torch_nor_what_is_slow_to_load():
    code = (
        "import sys, embedkit.serve.server, embedkit.cli.serve\n"
        "heavy = {'torch', 'sklearn', 'scipy', 'matplotlib', 'pandas', 'onnx'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True
    )
    assert run.stdout == "[]\n", run.stderr
