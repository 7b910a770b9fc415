"""Traces to OpenTelemetry: a span per request, and one per batch that is linked to them.

Needs ``embedkit[otel]``. Sampling, service name and resource are those of the environment
(``OTEL_TRACES_SAMPLER``, ``OTEL_SERVICE_NAME``, ``OTEL_RESOURCE_ATTRIBUTES``).
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from embedkit.serve.observe.record import CallRecord, ItemsRecord
from embedkit.serve.observe.tracing import Trace

__all__ = ["OtelTracing", "open_tracing"]

_CARRIED = ("traceparent", "tracestate")
# Codes that are the server's fault, as OpenTelemetry's conventions for gRPC have it.
_FAULTS = frozenset(
    {
        "UNKNOWN",
        "DEADLINE_EXCEEDED",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
    }
)


def open_tracing(endpoint: str = "") -> "OtelTracing":
    """Return what sends spans to a collector over OTLP and gRPC.

    Args:
        endpoint: ``http://HOST:PORT`` without encryption, ``https://HOST:PORT`` with; by
            default what OpenTelemetry's environment variables say.
    """
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    provider = TracerProvider(resource=Resource.create(_service()))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint or None)))
    return OtelTracing(provider)


def _service() -> dict[str, str]:
    """Our name, unless the environment has one."""
    return {} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: "embedkit"}


class OtelTracing:
    """Begins a span for each call.

    Args:
        provider: Makes and exports the spans.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("embedkit")
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, metadata: Iterable[tuple[str, str | bytes]]) -> Trace | None:
        """Begin a span below the caller's own, if the caller sent one; None if not sampled."""
        carrier = {key: value for key, value in metadata if key in _CARRIED}
        context = self._propagator.extract(carrier)
        span = self._tracer.start_span("call", context, SpanKind.SERVER)
        return _RequestSpan(self._tracer, span) if span.is_recording() else None

    def stop(self) -> None:
        """Send what has not been sent."""
        self._provider.shutdown()


class _RequestSpan:
    """The span of one request."""

    __slots__ = ("_model", "_tracer", "span")

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._model = ""
        self.span = span

    def asked(self, model: str, version: str, images: int) -> None:
        self._model = model
        self.span.set_attributes(
            {
                "embedkit.model": model,
                "embedkit.model.version": version,
                "embedkit.images": images,
            }
        )

    def answered(self, record: ItemsRecord, batch_size: int) -> None:
        self.span.set_attributes(
            {
                "embedkit.images.bad": record.bad,
                "embedkit.queue_ms": record.queue_s * 1e3,
                "embedkit.decode_ms": record.decode_s * 1e3,
                "embedkit.infer_ms": record.infer_s * 1e3,
                "embedkit.batch.largest": batch_size,
            }
        )

    def end(self, record: CallRecord) -> None:
        service, _, method = record.rpc.partition("/")
        self.span.update_name(record.rpc)
        self.span.set_attributes(
            {
                "rpc.system": "grpc",
                "rpc.service": service,
                "rpc.method": method,
                "rpc.grpc.status_code": record.code,
                "embedkit.request_id": record.request_id,
                "embedkit.reason": record.reason,
            }
        )
        if record.code in _FAULTS:
            self.span.set_status(Status(StatusCode.ERROR, record.details))
        self.span.end()

    @contextmanager
    def batch(self, others: Sequence[Trace], size: int) -> Iterator[None]:
        """A span of its own trace: no single request is its parent."""
        links = [
            Link(one.span.get_span_context()) for one in others if isinstance(one, _RequestSpan)
        ]
        attributes: dict[str, str | int] = {
            "embedkit.model": self._model,
            "embedkit.batch.size": size,
        }
        with self._tracer.start_as_current_span("batch", links=links, attributes=attributes):
            yield
