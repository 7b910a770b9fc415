"""Metrics read back: histograms subtracted, quantiles estimated, and the overview of both."""

import math
import socket
import threading

import numpy as np
import pytest

from embedkit.errors import InvalidInput, Unavailable
from embedkit.serve.observe.metrics import Gauge, Metrics
from embedkit.serve.observe.overview import compare
from embedkit.serve.observe.record import BatchRecord, CallRecord, ItemsRecord
from embedkit.serve.observe.scrape import Histogram, Snapshot, fetch, read
from embedkit.serve.observe.sideport import SidePort

RPC = "EmbeddingService/Embed"


def look(metrics, moment):
    return Snapshot(metrics.render().decode(), moment)


def test_quantiles_lie_within_their_bucket(rng):
    metrics = Metrics()
    seconds = rng.lognormal(-4, 1, 4000)
    for value in seconds:
        metrics.add(CallRecord(RPC, "OK", float(value), 1, "", "", ""))
    found = look(metrics, 0).histogram("embedkit_request_seconds", rpc=RPC)
    assert found.count == 4000
    assert found.mean == pytest.approx(seconds.mean())
    for q in (0.5, 0.9, 0.99):
        assert found.quantile(q) == pytest.approx(np.quantile(seconds, q), rel=0.25)


def test_quantiles_at_the_ends():
    assert math.isnan(Histogram().quantile(0.5))
    assert math.isnan(Histogram().mean)
    assert Histogram((1.0, math.inf), (0.0, 3.0), 30.0).quantile(0.5) == 1.0
    assert Histogram((2.0, math.inf), (4.0, 0.0), 4.0).quantile(0.5) == 1.0


def test_a_server_that_started_anew_is_taken_from_its_start():
    old = Histogram((1.0, math.inf), (9.0, 0.0), 4.0)
    new = Histogram((1.0, math.inf), (2.0, 1.0), 5.0)
    assert new.since(old) is new
    later = Histogram((1.0, math.inf), (3.0, 5.0), 9.0)
    assert later.since(new) == Histogram((1.0, math.inf), (1.0, 4.0), 4.0)


def test_the_overview_is_the_difference_of_two_looks():
    queued = [(("tiny", "1"), 7.0)]
    metrics = Metrics(
        [
            Gauge("embedkit_queue_items", "", ("model", "version"), lambda: queued),
            Gauge(
                "embedkit_active_provider",
                "",
                ("model", "version", "provider"),
                lambda: [(("tiny", "1", "CPUExecutionProvider"), 1.0)],
            ),
        ]
    )
    metrics.add(CallRecord(RPC, "OK", 50.0, 1, "", "", ""))
    metrics.add(BatchRecord("tiny", 64, 1.0, 0))
    before = look(metrics, 100.0)
    for _ in range(20):
        metrics.add(CallRecord(RPC, "OK", 0.004, 1, "", "", ""))
        metrics.add(ItemsRecord("tiny", 3, 1, 0.0015, 0.0, 0.0025))
        metrics.add(BatchRecord("tiny", 4, 0.003, 0))
    metrics.add(CallRecord(RPC, "RESOURCE_EXHAUSTED", 1e-4, 1, "", "QUEUE_FULL", ""))
    seen = compare(before, look(metrics, 102.0))
    (model,), (call,) = seen.models, seen.calls
    assert seen.seconds == 2.0
    assert (model.name, model.versions) == ("tiny", ("1 CPU",))
    assert (model.images_per_s, model.bad_per_s, model.queued) == (30, 10, 7)
    assert (model.batches.count, model.batches.mean) == (20, 4)
    assert 0.001 <= model.queue_s.quantile(0.5) <= 0.002
    assert (call.rpc, call.per_s, call.failed_per_s) == (RPC, 10.5, 0.5)
    assert 0.003 <= call.seconds.quantile(0.9) <= 0.005
    assert seen.shed_per_s == {"QUEUE_FULL": 0.5}
    assert seen.memory_bytes > 1 << 20


def test_metrics_are_fetched_and_what_is_none_is_told():
    metrics = Metrics()
    metrics.add(CallRecord(RPC, "OK", 0.004, 1, "", "", ""))
    port = SidePort("127.0.0.1:0", metrics=metrics.render, is_ready=bool)
    try:
        assert fetch(port.address).value("embedkit_requests_total", code="OK") == 1
    finally:
        port.stop()
    with pytest.raises(Unavailable, match="--metrics-bind"):
        fetch(port.address)
    with pytest.raises(InvalidInput, match="Prometheus"):
        read("<html>{")


@pytest.mark.parametrize(
    "answer",
    [
        b"\0\0\x12\x04\0 a binary protocol\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\ncut short",
        b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n\xff\xfe",
        b"",
    ],
)
def test_a_port_that_speaks_otherwise_is_told(answer):
    with socket.create_server(("127.0.0.1", 0)) as port:

        def answer_once():
            connection, _ = port.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=answer_once)
        thread.start()
        address = f"127.0.0.1:{port.getsockname()[1]}"
        with pytest.raises(Unavailable, match=f"metrics at {address}.*--metrics-bind"):
            fetch(address)
        thread.join()
