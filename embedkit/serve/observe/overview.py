"""What a server did between two looks at its metrics."""

from typing import NamedTuple

from embedkit.serve.observe.scrape import Histogram, Snapshot

__all__ = ["CallRow", "ModelRow", "Overview", "compare"]


class ModelRow(NamedTuple):
    """One model.

    Attributes:
        name: Of the model.
        versions: Loaded versions with the provider of each.
        images_per_s: Images answered well.
        bad_per_s: Images that failed.
        batches: Sizes of the batches that ran.
        queued: Images that wait now.
        queued_bytes: Bytes of their pixels.
        queue_s: Time in line of each call.
        infer_s: Time of each call's batches.
    """

    name: str
    versions: tuple[str, ...]
    images_per_s: float
    bad_per_s: float
    batches: Histogram
    queued: float
    queued_bytes: float
    queue_s: Histogram
    infer_s: Histogram


class CallRow(NamedTuple):
    """One method: calls and failures per second, and the time of each call."""

    rpc: str
    per_s: float
    failed_per_s: float
    seconds: Histogram


class Overview(NamedTuple):
    """Everything at a glance.

    Attributes:
        seconds: Between the two looks.
        models: By name.
        calls: By method; those that were ever called.
        shed_per_s: Refusals per second, by reason.
        cpu_share: CPU seconds per second; 1 is one busy core.
        memory_bytes: Resident now; 0 if unknown.
    """

    seconds: float
    models: tuple[ModelRow, ...]
    calls: tuple[CallRow, ...]
    shed_per_s: dict[str, float]
    cpu_share: float
    memory_bytes: float


def compare(before: Snapshot, after: Snapshot) -> Overview:
    """Return what happened from one look to the next.

    Args:
        before: The earlier look.
        after: The later look, at the same server.
    """
    change = _Change(before, after)
    names = after.labels("embedkit_active_provider", "model")
    rpcs = after.labels("embedkit_requests_total", "rpc")
    reasons = after.labels("embedkit_shed_total", "reason")
    return Overview(
        seconds=change.seconds,
        models=tuple(change.model(name) for name in names),
        calls=tuple(change.call(rpc) for rpc in rpcs),
        shed_per_s={
            reason: change.rate("embedkit_shed_total", reason=reason) for reason in reasons
        },
        cpu_share=change.rate("process_cpu_seconds_total"),
        memory_bytes=after.value("process_resident_memory_bytes"),
    )


class _Change:
    def __init__(self, before: Snapshot, after: Snapshot) -> None:
        self._before, self._after = before, after
        self.seconds = max(after.moment - before.moment, 1e-9)

    def rate(self, name: str, **labels: str) -> float:
        """Growth of a counter per second; from zero if the server started anew meanwhile."""
        now, then = self._after.value(name, **labels), self._before.value(name, **labels)
        return (now - then if now >= then else now) / self.seconds

    def histogram(self, name: str, **labels: str) -> Histogram:
        before = self._before.histogram(name, **labels)
        return self._after.histogram(name, **labels).since(before)

    def model(self, name: str) -> ModelRow:
        gauge = "embedkit_active_provider"
        versions = [
            f"{version} {provider.removesuffix('ExecutionProvider')}"
            for version in self._after.labels(gauge, "version", model=name)
            for provider in self._after.labels(gauge, "provider", model=name, version=version)
        ]
        return ModelRow(
            name=name,
            versions=tuple(versions),
            images_per_s=self.rate("embedkit_items_total", model=name, status="ok"),
            bad_per_s=self.rate("embedkit_items_total", model=name, status="error"),
            batches=self.histogram("embedkit_batch_size", model=name),
            queued=self._after.value("embedkit_queue_items", model=name),
            queued_bytes=self._after.value("embedkit_queue_bytes", model=name),
            queue_s=self.histogram("embedkit_stage_seconds", model=name, stage="queue"),
            infer_s=self.histogram("embedkit_stage_seconds", model=name, stage="infer"),
        )

    def call(self, rpc: str) -> CallRow:
        every = self.rate("embedkit_requests_total", rpc=rpc)
        good = self.rate("embedkit_requests_total", rpc=rpc, code="OK")
        seconds = self.histogram("embedkit_request_seconds", rpc=rpc)
        return CallRow(rpc, every, every - good, seconds)
