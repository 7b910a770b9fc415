"""Gate: a limit that a metric must keep, for scripts and CI."""

import difflib
import math
import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from embedkit.errors import InvalidInput
from embedkit.evaluate.task import TaskResult

__all__ = ["Gate", "GateResult", "check_gates", "check_names", "parse_gate"]

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
    "==": operator.eq,
}
_UNKNOWN = "unknown metric"
_GATE = re.compile(r"\s*([a-z0-9_]+)\.([^\s<>=]+)\s*(>=|<=|==|>|<)\s*([^\s<>=]+)\s*")


@dataclass(frozen=True)
class Gate:
    """One condition on one metric's point estimate.

    Attributes:
        task: Registry name of the task.
        metric: Path of the metric within the task.
        comparison: ``>=``, ``>``, ``<=``, ``<`` or ``==``.
        limit: What the value is compared with.
    """

    task: str
    metric: str
    comparison: str
    limit: float

    def __str__(self) -> str:
        # All digits: a limit of 0.9999995 is not 1.
        limit = repr(self.limit).removesuffix(".0")
        return f"{self.task}.{self.metric}{self.comparison}{limit}"


@dataclass(frozen=True)
class GateResult:
    """Whether a gate was passed.

    Attributes:
        gate: The condition, as text.
        value: The metric, or None where the task gave none or one that is not finite.
        passed: Whether the condition holds; False without a value.
        reason: Why there is no value, or empty.
    """

    gate: str
    value: float | None
    passed: bool
    reason: str = ""

    @property
    def is_unknown(self) -> bool:
        """Whether the task ran and has no such metric: a mistake in the gate itself."""
        return self.reason.startswith(_UNKNOWN)


def parse_gate(text: str, suite: Sequence[str]) -> Gate:
    """Read a gate such as ``knn.top1>=0.95``.

    Args:
        text: Task, metric, comparison and limit.
        suite: Tasks that will run.

    Raises:
        InvalidInput: If the text is no gate, or its task is not in the suite.
    """
    match = _GATE.fullmatch(text)
    if match is None:
        raise InvalidInput(
            f"expected a gate like 'knn.top1>=0.95' with one of {', '.join(_COMPARE)}, "
            f"got {text!r}"
        )
    task, metric, comparison, limit = match.groups()
    if task not in suite:
        raise InvalidInput(
            f"expected a gate on a task of the suite ({', '.join(suite)}), got {text!r}; "
            f"add {task!r} to --suite"
        )
    try:
        return Gate(task, metric, comparison, float(limit))
    except ValueError:
        raise InvalidInput(f"expected a number as limit, got {limit!r} in {text!r}") from None


def check_names(gates: Sequence[Gate], possible: Mapping[str, Collection[str]]) -> None:
    """Refuse a gate on a metric that its task cannot give, before anything runs.

    Args:
        gates: Conditions on the metrics.
        possible: Every metric that a task may give, by task; a task that is not in it, or has
            none, is not checked.

    Raises:
        InvalidInput: If a metric is none of these; the message suggests the nearest ones.
    """
    for gate in gates:
        names = possible.get(gate.task)
        if names and gate.metric not in names:
            raise InvalidInput(_unknown(gate, names))


def check_gates(gates: Sequence[Gate], results: Sequence[TaskResult]) -> tuple[GateResult, ...]:
    """Compare each gate with what was measured.

    A metric that is missing does not pass; where its task ran, the reason lists near names.
    """
    found = {result.task: result for result in results}
    return tuple(_check(gate, found.get(gate.task)) for gate in gates)


def _check(gate: Gate, result: TaskResult | None) -> GateResult:
    if result is None:
        return GateResult(str(gate), None, False, f"{gate.task} did not run")
    metric = result.metrics.get(gate.metric)
    if metric is not None and not math.isfinite(metric.value):
        reason = f"expected a finite {gate.task}.{gate.metric}, got {metric.value}"
        return GateResult(str(gate), None, False, reason)
    if metric is not None:
        passed = _COMPARE[gate.comparison](metric.value, gate.limit)
        return GateResult(str(gate), metric.value, passed)
    if result.status == "ok":
        return GateResult(str(gate), None, False, _unknown(gate, result.metrics))
    why = result.warnings[0] if result.warnings else "no reason given"
    return GateResult(str(gate), None, False, f"{gate.task} {result.status}: {why}")


def _unknown(gate: Gate, metrics: Collection[str]) -> str:
    near = difflib.get_close_matches(gate.metric, metrics, n=5, cutoff=0.4)
    names = ", ".join(f"{gate.task}.{name}" for name in near or sorted(metrics)[:10])
    return f"{_UNKNOWN} '{gate.task}.{gate.metric}' in a gate; did you mean one of: {names}"
