"""Traces of a real server: to memory, and over OTLP to a collector of ours."""

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

import embedkit
from embedkit.bench.models import write_network
from embedkit.serve.config import ServerConfig
from embedkit.serve.server import Server
from embedkit.wire.codec import encode_tensor
from embedkit.wire.proto import embedding_pb2, embedding_pb2_grpc

pytest.importorskip("opentelemetry.sdk", reason="needs embedkit[otel]")
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased
from opentelemetry.trace import StatusCode

from embedkit.serve.observe.otel import OtelTracing

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
IMAGE = encode_tensor(np.zeros((1, 32, 32, 3), np.uint8))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_network(folder, "light")
    return folder


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
def stub(models, exporter, tmp_path):
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON

    provider = TracerProvider(sampler=ParentBased(ALWAYS_ON))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    config = ServerConfig(models=models, data_dir=tmp_path, bind="127.0.0.1:0")
    server = Server(config, OtelTracing(provider))
    port = server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield embedding_pb2_grpc.EmbeddingServiceStub(channel)
    server.stop(5)


def spans(exporter, name, count=1):
    """Spans of a name; they may end a moment after the answer."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        found = [span for span in exporter.get_finished_spans() if span.name == name]
        if len(found) >= count:
            return found
        time.sleep(0.01)
    raise AssertionError([span.name for span in exporter.get_finished_spans()])


def traceparent(flags="01"):
    return (("traceparent", f"00-{TRACE}-{PARENT}-{flags}"),)


def test_a_request_is_below_its_caller_and_its_batch_is_linked(stub, exporter):
    request = embedding_pb2.EmbedRequest(request_id="r7", pixels=IMAGE)
    stub.Embed(request, metadata=traceparent())
    (call,) = spans(exporter, "EmbeddingService/Embed")
    assert f"{call.context.trace_id:032x}" == TRACE
    assert f"{call.parent.span_id:016x}" == PARENT
    assert call.attributes["embedkit.request_id"] == "r7"
    assert call.attributes["embedkit.model"] == "light"
    assert call.attributes["rpc.grpc.status_code"] == "OK"
    assert call.attributes["embedkit.images"] == 1
    assert call.attributes["embedkit.batch.largest"] == 1
    assert call.attributes["embedkit.infer_ms"] > 0
    (batch,) = spans(exporter, "batch")
    assert [link.context.span_id for link in batch.links] == [call.context.span_id]
    assert batch.parent is None
    assert batch.attributes["embedkit.batch.size"] == 1
    assert call.start_time <= batch.start_time <= batch.end_time <= call.end_time


def test_every_request_of_a_shared_batch_is_linked(stub, exporter):
    request = embedding_pb2.EmbedRequest(pixels=IMAGE)
    for future in [stub.Embed.future(request) for _ in range(64)]:
        future.result()
    calls = {s.context.span_id for s in spans(exporter, "EmbeddingService/Embed", 64)}
    end = time.monotonic() + 5
    while time.monotonic() < end:
        batches = spans(exporter, "batch")
        linked = [link.context.span_id for batch in batches for link in batch.links]
        if len(linked) == 64:
            break
    assert set(linked) == calls
    assert max(batch.attributes["embedkit.batch.size"] for batch in batches) > 1


def test_requests_of_a_stream_are_spans_of_their_own(stub, exporter):
    requests = [embedding_pb2.EmbedRequest(request_id=str(i), pixels=IMAGE) for i in range(3)]
    assert len(list(stub.EmbedStream(iter(requests), metadata=traceparent()))) == 3
    found = spans(exporter, "EmbeddingService/EmbedStream", 3)
    names = {span.attributes.get("embedkit.request_id") for span in found}
    assert {"0", "1", "2"} <= names
    assert {f"{span.context.trace_id:032x}" for span in found if span.parent} == {TRACE}


def test_a_failure_has_its_code_and_a_callers_mistake_is_no_error(stub, exporter):
    with pytest.raises(grpc.RpcError):
        stub.Embed(embedding_pb2.EmbedRequest(model="nobody", pixels=IMAGE))
    (call,) = spans(exporter, "EmbeddingService/Embed")
    assert call.attributes["rpc.grpc.status_code"] == "NOT_FOUND"
    assert call.status.status_code is StatusCode.UNSET


def test_what_the_caller_does_not_sample_costs_no_span(stub, exporter):
    stub.Embed(embedding_pb2.EmbedRequest(pixels=IMAGE), metadata=traceparent("00"))
    stub.Embed(embedding_pb2.EmbedRequest(pixels=IMAGE), metadata=(("traceparent", "junk"),))
    (call,) = spans(exporter, "EmbeddingService/Embed")
    assert call.parent is None
    assert len(spans(exporter, "batch")) == 1


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self):
        self.requests, self.arrived = [], threading.Event()

    def Export(self, request, context):  # noqa: N802
        self.requests.append(request)
        self.arrived.set()
        return trace_service_pb2.ExportTraceServiceResponse()


def test_the_command_sends_traces_to_a_collector(models, tmp_path):
    pool = ThreadPoolExecutor(2)
    server, collector = grpc.server(pool), Collector()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    command = [sys.executable, "-m", "embedkit", "serve", "--models", str(models)]
    command += ["--data-dir", str(tmp_path), "--bind", "127.0.0.1:0", "--metrics-bind", "off"]
    command += ["--otlp", f"http://127.0.0.1:{port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        address = json.loads(process.stdout.readline())["address"]
        with embedkit.connect(address) as client:
            client.embed(np.zeros((1, 32, 32, 3), np.uint8))
        process.terminate()  # what has not been sent is sent at the end
        assert process.wait(20) == 0
    assert collector.arrived.wait(5)
    server.stop(0).wait()
    pool.shutdown()
    resources = [r for request in collector.requests for r in request.resource_spans]
    services = {
        a.value.string_value
        for r in resources
        for a in r.resource.attributes
        if a.key == "service.name"
    }
    names = {s.name for r in resources for scope in r.scope_spans for s in scope.spans}
    assert services == {"embedkit"}
    assert {"EmbeddingService/Embed", "batch"} <= names


def test_without_traces_nothing_of_opentelemetry_is_loaded():
    code = (
        "import sys, embedkit.serve.server, embedkit.cli.serve\n"
        "from embedkit.cli.serve import _tracing\n"
        "assert _tracing('') is None\n"
        "assert not [m for m in sys.modules if m.startswith('opentelemetry')]\n"
    )
    environment = {"PATH": "/usr/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
