"""Task: one question asked of a served encoder, and the answer with its uncertainty.

A task is a frozen dataclass registered under its module's name. It sees the model through the
``Context`` only, and returns metrics, the same metrics of the baselines, per-item arrays from
which most of its metrics can be computed again, and data for the plots.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from embedkit.evaluate.context import Context
from embedkit.evaluate.statistics import Metric, Metrics
from embedkit.registry import Registry

__all__ = [
    "Figure",
    "Foretelling",
    "Metric",
    "Metrics",
    "Status",
    "Task",
    "TaskResult",
    "skipped",
    "tasks",
]

Status = Literal["ok", "skipped", "failed"]

Figure = dict[str, object]
"""JSON-able data of one plot. ``kind`` is one of:

``roc``         fpr, tpr, label
``histogram``   series: {name: [values]}
``curve``       x, series: {name: {y, lo, hi}}, xlabel, ylabel
``scatter2d``   x, y, labels
``image_grid``  rows: [{label, images: [base64 of a PNG]}]
``reliability`` series: {name: {confidence, accuracy, count}}, per bin
``table``       columns: [text], rows: [[text, one per column]]

An optional ``title`` goes above the plot.
"""


@dataclass(frozen=True)
class TaskResult:
    """What one task found.

    A task that can answer a part of its question returns that part: with status ``ok`` and a
    warning when the missing part is minor, with ``failed`` when the question stays open.

    Attributes:
        task: Registry name.
        metrics: By path without the task's name, e.g. ``kmnist.knn.auroc``.
        baselines: Per baseline (``raw_pixels``, ``random_encoder``) the same paths.
        cost: What the answer needed, in counts that do not depend on the machine or on what
            was cached: ``images``, ``queries``, ... ; the run adds seconds elsewhere.
        status: ``skipped`` and ``failed`` have their reason as the first warning.
        warnings: Sentences for the reader of the report.
        items: Arrays with one entry per item, saved beside the report.
        figures: Plot data by name.
    """

    task: str
    metrics: Metrics = field(default_factory=dict)
    baselines: Mapping[str, Metrics] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)
    status: Status = "ok"
    warnings: tuple[str, ...] = ()
    items: Mapping[str, npt.NDArray[np.generic]] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)

    def to_dict(self) -> dict[str, object]:
        """The entry in ``results`` of ``report.json``; items and figures are kept elsewhere."""
        return {
            "task": self.task,
            "metrics": {name: m.to_dict() for name, m in self.metrics.items()},
            "baselines": {
                name: {key: m.to_dict() for key, m in metrics.items()}
                for name, metrics in self.baselines.items()
            },
            "cost": dict(self.cost),
            "status": self.status,
            "warnings": list(self.warnings),
        }


class Task(Protocol):
    """One question about an encoder."""

    def run(self, context: Context) -> TaskResult:
        """Answer it.

        Raises:
            EmbedkitError: If there is no answer; the run records a failed task and goes on.
        """
        ...


@runtime_checkable
class Foretelling(Protocol):
    """A task that knows its metrics' names beforehand, so that gates are checked early."""

    def metric_names(self, context: Context) -> Collection[str]:
        """Every metric that it may give here; empty if it will be skipped."""
        ...


tasks: Registry[Callable[[], Task]] = Registry("embedkit.evaluate.tasks", "task")
"""Every task by name; ``tasks.get(name)()`` is the task with its default settings."""


def skipped(task: str, reason: str) -> TaskResult:
    """Return the result of a task that does not apply here."""
    return TaskResult(task, status="skipped", warnings=(reason,))
