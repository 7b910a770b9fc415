"""What /metrics says, read back with the Prometheus library's own parser."""

import threading

import pytest
from prometheus_client.parser import text_string_to_metric_families

from embedkit.serve.observe.metrics import Gauge, Metrics
from embedkit.serve.observe.record import BatchRecord, CallRecord, ItemsRecord

RPC = "EmbeddingService/Embed"


def samples(metrics):
    """Values by name and label values, the latter in alphabetical order."""
    return {
        (s.name, *sorted(s.labels.values())): s.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for s in family.samples
    }


def call(code="OK", seconds=0.002, reason=""):
    return CallRecord(RPC, code, seconds, 10, "", reason, "")


def test_calls_are_counted_by_code_and_timed():
    metrics = Metrics()
    for seconds in (0.0001, 0.0002, 0.5, 1000.0):
        metrics.add(call(seconds=seconds))
    metrics.add(call("RESOURCE_EXHAUSTED", reason="QUEUE_FULL"))
    seen, rpc = samples(metrics), RPC
    assert seen["embedkit_requests_total", rpc, "OK"] == 4
    assert seen["embedkit_requests_total", rpc, "RESOURCE_EXHAUSTED"] == 1
    assert seen["embedkit_shed_total", "QUEUE_FULL"] == 1
    assert seen["embedkit_request_seconds_bucket", "0.0001", rpc] == 1
    assert seen["embedkit_request_seconds_bucket", "0.0003", rpc] == 2
    assert seen["embedkit_request_seconds_bucket", "100", rpc] == 4
    assert seen["embedkit_request_seconds_bucket", "+Inf", rpc] == 5
    assert seen["embedkit_request_seconds_count", rpc] == 5
    assert seen["embedkit_request_seconds_sum", rpc] == pytest.approx(1000.5023)


def test_items_and_stages_and_batches():
    metrics = Metrics()
    metrics.add(ItemsRecord("tiny", 3, 1, 0.01, 0.02, 0.03))
    metrics.add(ItemsRecord("tiny", 2, 0, 0.01, 0.02, 0.03))
    metrics.add(BatchRecord("tiny", 5, 0.01, 2))
    seen = samples(metrics)
    assert seen["embedkit_items_total", "ok", "tiny"] == 5
    assert seen["embedkit_items_total", "error", "tiny"] == 1
    assert seen["embedkit_stage_seconds_sum", "decode", "tiny"] == pytest.approx(0.04)
    assert seen["embedkit_stage_seconds_count", "queue", "tiny"] == 2
    assert seen["embedkit_batch_size_bucket", "4", "tiny"] == 0
    assert seen["embedkit_batch_size_bucket", "8", "tiny"] == 1
    assert seen["embedkit_batch_reruns_total", "tiny"] == 2


def test_gauges_are_read_when_asked():
    value = [1.0]
    gauge = Gauge("embedkit_queue_items", "Waiting.", ("model",), lambda: [(("a",), value[0])])
    metrics = Metrics([gauge])
    assert samples(metrics)["embedkit_queue_items", "a"] == 1
    value[0] = 7.0
    assert samples(metrics)["embedkit_queue_items", "a"] == 7


def test_nothing_is_lost_between_threads():
    metrics = Metrics()

    def count():
        for _ in range(2000):
            metrics.add(call())

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert samples(metrics)["embedkit_requests_total", RPC, "OK"] == 8000
