"""How long does an answer take?"""

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.evaluate.context import Context
from embedkit.evaluate.statistics import LEVEL, Metric, Metrics
from embedkit.evaluate.task import TaskResult, tasks

__all__ = ["Latency"]

_WARM_UP = 5


@tasks.register("latency")
@dataclass(frozen=True)
class Latency:
    """Time of one call after another with images as they are, as a lone client sees it.

    The only task whose numbers vary from run to run. Throughput under load is another
    question: ``embedkit bench serve``.

    Metrics: per size of a call ``<images>.p50_ms``, ``.p95_ms``, ``.p99_ms``, and
    ``.images_per_s``. A quantile has the interval by order statistics where there are calls
    enough for one: p95 from 72 on, p99 from 368 on, more than the 100 of a run that says
    nothing else. Items: ``<images>.ms``.

    Attributes:
        sizes: Images per call.
    """

    sizes: tuple[int, ...] = (1, 8, 64)

    def metric_names(self, context: Context) -> tuple[str, ...]:
        """Every metric that it may give here."""
        kinds = ("p50_ms", "p95_ms", "p99_ms", "images_per_s")
        return tuple(f"{size}.{kind}" for size in self.sizes for kind in kinds)

    def run(self, context: Context) -> TaskResult:
        """Time ``latency_calls`` calls of each size, after a few to warm up."""
        metrics: Metrics = {}
        items: dict[str, npt.NDArray[np.generic]] = {}
        calls = context.options.latency_calls
        sent = 0
        for index, size in enumerate(self.sizes):
            context.progress(f"served: calls of {size}", index / len(self.sizes))
            times = _time(context, size, calls)
            items[f"{size}.ms"] = times
            sent += size * (calls + _WARM_UP)
            for quantile in (50, 95, 99):
                metrics[f"{size}.p{quantile}_ms"] = _quantile(times, quantile / 100)
            rate = 1000 * size * calls / float(times.sum())
            metrics[f"{size}.images_per_s"] = Metric(rate, None, calls, "images/s")
        return TaskResult("latency", metrics, cost={"images": sent}, items=items)


def _time(context: Context, size: int, calls: int) -> npt.NDArray[np.float64]:
    """Milliseconds of each call."""
    images = context.test.images
    count = len(images)
    times = np.empty(calls)
    for call in range(-_WARM_UP, calls):
        rows = [(call * size + i) % count for i in range(size)]
        batch = (
            images[rows] if isinstance(images, np.ndarray) else tuple(images[r] for r in rows)
        )
        begin = time.perf_counter()
        context.served.embed(batch)
        if call >= 0:
            times[call] = 1000 * (time.perf_counter() - begin)
    return times


def _quantile(times: npt.NDArray[np.float64], share: float) -> Metric:
    """A quantile and its interval by the ranks between which it lies with 95 %."""
    from scipy.stats import binom

    ordered, n = np.sort(times), len(times)
    value = float(ordered[min(int(np.ceil(share * n)) - 1, n - 1)])
    tails = ((1 - LEVEL) / 2, 0.5 + LEVEL / 2)
    low, high = (int(binom.ppf(tail, n, share)) for tail in tails)
    # Beyond the largest time nothing was seen, so a far quantile of few calls has no bound.
    if low < 1 or high >= n:
        return Metric(value, None, n, "ms", higher_is_better=False)
    ci = (float(ordered[low - 1]), float(ordered[high]))
    return Metric(value, ci, n, "ms", False, "order_statistic")
