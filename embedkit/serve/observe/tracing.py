"""What traces calls and batches: a seam, so that nothing here needs OpenTelemetry.

A call that is not traced has ``trace = None``, and costs one comparison wherever it is asked.
"""

import os
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from embedkit.serve.observe.record import CallRecord, ItemsRecord

__all__ = ["Trace", "Tracing", "is_wanted"]

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def is_wanted(endpoint: str) -> bool:
    """Whether somebody asked for traces: with an endpoint, or by OpenTelemetry's variables."""
    return bool(endpoint) or any(os.environ.get(name) for name in _ENDPOINTS)


class Trace(Protocol):
    """The span of one request under way."""

    def asked(self, model: str, version: str, images: int) -> None:
        """Tell what is asked: a model, and how many images."""
        ...

    def answered(self, record: ItemsRecord, batch_size: int) -> None:
        """Tell how it went, and the largest batch that any of the images ran in."""
        ...

    def end(self, record: CallRecord) -> None:
        """End the span as the call ended."""
        ...

    def batch(self, others: Sequence["Trace"], size: int) -> AbstractContextManager[object]:
        """Surround the run of a batch that has images of this request and of others.

        Args:
            others: Every traced request of the batch, this one among them.
            size: Images of the batch.
        """
        ...


class Tracing(Protocol):
    """Begins the span of each call."""

    def begin(self, metadata: Iterable[tuple[str, str | bytes]]) -> Trace | None:
        """Begin a span below the caller's own, if the caller sent one; None if not sampled.

        Args:
            metadata: What the caller sent beside the request.
        """
        ...

    def stop(self) -> None:
        """Send what has not been sent."""
        ...
