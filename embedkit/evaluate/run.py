"""One evaluation: every task of a suite in turn, and a report whatever happens."""

import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from embedkit.errors import EmbedkitError, InvalidInput, ModelChanged
from embedkit.evaluate.context import Context
from embedkit.evaluate.gate import Gate, check_gates, check_names
from embedkit.evaluate.report import Report, Subject, describe_run
from embedkit.evaluate.task import Foretelling, TaskResult, tasks

__all__ = ["DEFAULT_SUITE", "check_suite", "evaluate"]

DEFAULT_SUITE = ("classify", "knn", "linear", "ood", "robustness", "parity")

_log = logging.getLogger(__name__)


def evaluate(
    context: Context,
    suite: Sequence[str] = DEFAULT_SUITE,
    *,
    subject: Subject | None = None,
    gates: Sequence[Gate] = (),
) -> Report:
    """Run the tasks and report what they found.

    A task that fails is recorded as failed, and the others still run. If the served model
    changes on the way, the rest is not run and the report is invalid. An interrupt (Ctrl-C)
    ends the run with the report of what was done.

    Args:
        context: Models, data and settings.
        suite: Registry names of tasks, each once.
        subject: What the report says of the model.
        gates: Conditions on the metrics.

    Raises:
        InvalidInput: If a task is unknown or given twice, or a gate is on a metric that its
            task cannot give; nothing has run then.
    """
    names = check_suite(suite)
    check_names(gates, _possible_metrics(names, context))
    started = datetime.now(UTC).isoformat(timespec="seconds")
    model, data, run = describe_run(context, subject or Subject(), names, started)
    results, timing, problem = _run_all(names, context)
    problem = problem or _changed(context, str(model["digest"]))
    problems = (problem,) if problem else ()
    run["from_cache"] = list(context.cache.from_disk)
    return Report(model, data, run, results, timing, problems, check_gates(gates, results))


def check_suite(suite: Sequence[str]) -> tuple[str, ...]:
    """Return the names, if each is a task and occurs once.

    Raises:
        InvalidInput: If a task is unknown or given twice, or there is none.
    """
    names = tuple(suite)
    if len(set(names)) != len(names) or not names:
        raise InvalidInput(f"expected each task once and at least one, got {list(names)}")
    for name in names:
        tasks.get(name)
    return names


def _possible_metrics(names: Sequence[str], context: Context) -> dict[str, Collection[str]]:
    """The metrics of the tasks that know theirs beforehand."""
    made = {name: tasks.get(name)() for name in names}
    return {
        name: task.metric_names(context)
        for name, task in made.items()
        if isinstance(task, Foretelling)
    }


def _run_all(
    names: tuple[str, ...], context: Context
) -> tuple[tuple[TaskResult, ...], dict[str, float], str]:
    """Results, seconds per task, and why the run ended early or an empty string."""
    results: list[TaskResult] = []
    timing: dict[str, float] = {}
    problem = ""
    for name in names:
        begin = time.perf_counter()
        if not problem:
            try:
                results.append(_attempt(name, context))
            except ModelChanged as error:
                problem = f"the served model changed during {name!r}: {error}"
            except KeyboardInterrupt:
                problem = f"interrupted during {name!r}"
        if problem:
            results.append(TaskResult(name, status="failed", warnings=(problem,)))
        timing[name] = round(time.perf_counter() - begin, 3)
    return tuple(results), timing, problem


def _attempt(name: str, context: Context) -> TaskResult:
    """Run one task; an error becomes a failed result."""
    context.progress(name, 0.0)
    try:
        result = tasks.get(name)().run(context)
    except ModelChanged:
        raise
    except EmbedkitError as error:
        return TaskResult(name, status="failed", warnings=(str(error),))
    except Exception as error:
        # A defect of one task must not cost the answers of the others.
        _log.exception("task %s failed", name)
        return TaskResult(name, status="failed", warnings=(f"{type(error).__name__}: {error}",))
    finally:
        context.progress(name, 1.0)
    return result if result.task == name else replace(result, task=name)


def _changed(context: Context, digest: str) -> str:
    """Ask the model for its digest once more; a sentence if it is another one now."""
    try:
        context.served.embed(context.test.images[:1])
    except Exception as error:
        # Whatever it is, the answers before it are worth keeping.
        return f"the model could not be asked for its digest at the end: {error!r}"
    if context.served.digest != digest:
        return f"the served model changed from {digest} to {context.served.digest}"
    return ""
