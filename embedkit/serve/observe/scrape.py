"""Read ``/metrics`` back: values, and histograms to subtract and to ask for quantiles."""

import http.client
import math
import time
import urllib.request
from dataclasses import dataclass
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from embedkit.errors import InvalidInput, Unavailable

__all__ = ["Histogram", "Snapshot", "fetch", "read"]

_TIMEOUT_S = 10.0


class _Sample(NamedTuple):
    labels: dict[str, str]
    value: float

    def has(self, labels: dict[str, str]) -> bool:
        return all(self.labels.get(key) == value for key, value in labels.items())


@dataclass(frozen=True)
class Histogram:
    """How many values fell into each bucket.

    Attributes:
        bounds: Upper bound of each bucket, ascending; the last is infinite.
        counts: Values in each bucket.
        total: Sum of the values.
    """

    bounds: tuple[float, ...] = (math.inf,)
    counts: tuple[float, ...] = (0.0,)
    total: float = 0.0

    @property
    def count(self) -> float:
        """How many values there are."""
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """Mean of the values; NaN if there is none."""
        return self.total / self.count if self.count else math.nan

    def since(self, before: "Histogram") -> "Histogram":
        """What came after an earlier look, or everything if the server started anew since."""
        if before.bounds != self.bounds or before.count > self.count:
            return self
        counts = tuple(a - b for a, b in zip(self.counts, before.counts, strict=True))
        return Histogram(self.bounds, counts, self.total - before.total)

    def quantile(self, q: float) -> float:
        """Estimate a quantile: as if values lay evenly, by ratio, between a bucket's bounds.

        Args:
            q: A fraction in [0, 1].

        Returns:
            An estimate, off by at most the width of its bucket; the last finite bound for what
            lies above it, NaN if there is no value.
        """
        wanted, below = q * self.count, 0.0
        for i, count in enumerate(self.counts):
            if count and below + count >= wanted:
                low = self.bounds[i - 1] if i else 0.0
                high = self.bounds[i]
                if math.isinf(high):
                    return low
                share = (wanted - below) / count
                return low * (high / low) ** share if low > 0 else high * share
            below += count
        return math.nan


class Snapshot:
    """All metrics of one moment.

    Args:
        text: What ``/metrics`` answered.
        moment: On the monotonic clock.
    """

    def __init__(self, text: str, moment: float) -> None:
        self.moment = moment
        self._samples: dict[str, list[_Sample]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found = _Sample(sample.labels, float(sample.value))
                self._samples.setdefault(sample.name, []).append(found)

    def value(self, name: str, **labels: str) -> float:
        """Sum of the series of a name that have these labels; 0 if there is none."""
        return sum(s.value for s in self._samples.get(name, ()) if s.has(labels))

    def labels(self, name: str, label: str, **labels: str) -> list[str]:
        """Sorted values of one label among the series of a name that have these labels."""
        chosen = (s for s in self._samples.get(name, ()) if s.has(labels))
        return sorted({s.labels[label] for s in chosen if label in s.labels})

    def histogram(self, name: str, **labels: str) -> Histogram:
        """The histograms of a name that have these labels, added up."""
        below: dict[float, float] = {}
        for sample in self._samples.get(f"{name}_bucket", ()):
            if sample.has(labels):
                bound = float(sample.labels["le"])
                below[bound] = below.get(bound, 0.0) + sample.value
        if not below:
            return Histogram()
        bounds = tuple(sorted(below))
        steps = [below[bound] for bound in bounds]
        counts = tuple(b - a for a, b in zip([0.0, *steps], steps, strict=False))
        return Histogram(bounds, counts, self.value(f"{name}_sum", **labels))


def fetch(address: str) -> Snapshot:
    """Read the metrics of a server.

    Args:
        address: ``HOST:PORT`` of its side port.

    Raises:
        Unavailable: If nothing answers there, or something that does not speak HTTP.
        InvalidInput: If what answers are not metrics.
    """
    # Never through a proxy: the side port listens on loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{address}/metrics", timeout=_TIMEOUT_S) as reply:
            text = reply.read().decode()
    except (OSError, ValueError) as error:
        raise Unavailable(
            f"expected metrics at {address}, got: {error}; see --metrics-bind of the server"
        ) from error
    except http.client.HTTPException as error:
        kind = type(error).__name__
        raise Unavailable(
            f"expected metrics at {address}, got what is no HTTP ({kind}: "
            f"{str(error)[:80]!r}); see --metrics-bind of the server"
        ) from error
    return read(text)


def read(text: str) -> Snapshot:
    """Read the text of ``/metrics``.

    Raises:
        InvalidInput: If it is in another format.
    """
    try:
        return Snapshot(text, time.monotonic())
    except ValueError as error:
        raise InvalidInput(f"expected metrics in Prometheus' format, got: {error}") from error
