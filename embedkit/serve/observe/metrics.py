"""Counts and histograms of finished work, in Prometheus' text format.

Calls only append records; they are folded into the counts many at a time, when there are enough
or when somebody asks. Between two calls another thread's work has filled the cache, so that
counting one by one costs ten times as much. The Prometheus library only writes the text.
"""

import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from embedkit.serve.observe.record import BatchRecord, CallRecord, ItemsRecord

__all__ = ["Gauge", "Metrics"]

# Four to a decade, from 100 µs, the cost of a call, to 100 s: percentiles to within a factor 2.
_SECONDS = (*(float(f"{m}e{d}") for d in range(-4, 2) for m in (1, 2, 3, 5)), 100.0)
_SIZES = tuple(float(1 << k) for k in range(11))
_FOLD_AT = 256
_SHED = frozenset({"QUEUE_FULL", "RATE_LIMITED", "MESSAGE_TOO_LARGE", "UNAVAILABLE"})

Labels = tuple[str, ...]


@dataclass(frozen=True)
class Gauge:
    """A value that is read when somebody asks: label values and number of each series."""

    name: str
    help: str
    labels: Labels
    read: Callable[[], Iterable[tuple[Labels, float]]]


@dataclass(frozen=True)
class _Counter:
    name: str
    help: str
    labels: Labels
    values: dict[Labels, int] = field(default_factory=dict)

    def add(self, labels: Labels, amount: int = 1) -> None:
        self.values[labels] = self.values.get(labels, 0) + amount

    def family(self) -> Metric:
        family = CounterMetricFamily(self.name, self.help, labels=self.labels)
        for labels, value in self.values.items():
            family.add_metric(labels, value)
        return family


@dataclass(frozen=True)
class _Histogram:
    name: str
    help: str
    labels: Labels
    bounds: tuple[float, ...]
    counts: dict[Labels, list[int]] = field(default_factory=dict)
    sums: dict[Labels, float] = field(default_factory=dict)

    def put(self, labels: Labels, value: float) -> None:
        counts = self.counts.get(labels)
        if counts is None:
            counts = self.counts[labels] = [0] * (len(self.bounds) + 1)
            self.sums[labels] = 0.0
        counts[bisect_left(self.bounds, value)] += 1
        self.sums[labels] += value

    def family(self) -> Metric:
        family = HistogramMetricFamily(self.name, self.help, labels=self.labels)
        edges = [*(f"{bound:g}" for bound in self.bounds), "+Inf"]
        for labels, counts in self.counts.items():
            total, buckets = 0, []
            for edge, count in zip(edges, counts, strict=True):
                total += count
                buckets.append((edge, total))
            family.add_metric(labels, buckets, self.sums[labels])
        return family


class Metrics(Collector):
    """Everything that the server counts; safe to use from many threads.

    Args:
        gauges: Values that are read, not counted.
    """

    def __init__(self, gauges: Iterable[Gauge] = ()) -> None:
        self._gauges = tuple(gauges)
        self._lock = threading.Lock()
        self._calls = _Counter("embedkit_requests", "Finished calls.", ("rpc", "code"))
        self._shed = _Counter("embedkit_shed", "Calls refused to protect us.", ("reason",))
        self._items = _Counter("embedkit_items", "Images answered.", ("model", "status"))
        self._reruns = _Counter("embedkit_batch_reruns", "Runs after a failure.", ("model",))
        self._call_seconds = _Histogram(
            "embedkit_request_seconds", "Time of a call.", ("rpc",), _SECONDS
        )
        self._stage_seconds = _Histogram(
            "embedkit_stage_seconds", "Time of a stage.", ("model", "stage"), _SECONDS
        )
        self._batch_size = _Histogram(
            "embedkit_batch_size", "Images in a batch.", ("model",), _SIZES
        )
        self._batch_seconds = _Histogram(
            "embedkit_batch_seconds", "Time of a batch.", ("model",), _SECONDS
        )
        self._pending: deque[CallRecord | ItemsRecord | BatchRecord] = deque()
        self._registry = CollectorRegistry()
        self._registry.register(self)
        # CPU seconds, memory and files of this process, under the names that everybody uses.
        ProcessCollector(registry=self._registry)

    def add(self, record: CallRecord | ItemsRecord | BatchRecord) -> None:
        """Count a finished call, the images of one, or a batch."""
        self._pending.append(record)
        if len(self._pending) > _FOLD_AT and self._lock.acquire(blocking=False):
            try:
                self._fold()
            finally:
                self._lock.release()

    def render(self) -> bytes:
        """The text that ``/metrics`` answers."""
        return bytes(generate_latest(self._registry))

    def collect(self) -> Iterator[Metric]:
        """Give every family; the Prometheus library calls this."""
        with self._lock:
            self._fold()
            families = [
                source.family()
                for source in (
                    *(self._calls, self._shed, self._items, self._reruns),
                    *(self._call_seconds, self._stage_seconds),
                    *(self._batch_size, self._batch_seconds),
                )
            ]
        yield from families
        for gauge in self._gauges:
            family = GaugeMetricFamily(gauge.name, gauge.help, labels=gauge.labels)
            for labels, value in gauge.read():
                family.add_metric(labels, value)
            yield family

    def _fold(self) -> None:
        """Count what is pending; the caller holds the lock."""
        while self._pending:
            record = self._pending.popleft()
            if isinstance(record, CallRecord):
                self._count_call(record)
            elif isinstance(record, ItemsRecord):
                self._count_items(record)
            else:
                self._count_batch(record)

    def _count_call(self, record: CallRecord) -> None:
        self._calls.add((record.rpc, record.code))
        self._call_seconds.put((record.rpc,), record.seconds)
        if record.reason in _SHED:
            self._shed.add((record.reason,))

    def _count_items(self, record: ItemsRecord) -> None:
        model = record.model
        self._items.add((model, "ok"), record.good)
        if record.bad:
            self._items.add((model, "error"), record.bad)
        self._stage_seconds.put((model, "queue"), record.queue_s)
        self._stage_seconds.put((model, "decode"), record.decode_s)
        self._stage_seconds.put((model, "infer"), record.infer_s)

    def _count_batch(self, record: BatchRecord) -> None:
        labels = (record.model,)
        self._batch_size.put(labels, record.size)
        self._batch_seconds.put(labels, record.seconds)
        self._reruns.add(labels, record.reruns)
