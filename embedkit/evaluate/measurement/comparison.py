"""Two reports over the same images, compared item by item.

Which arrays of ``items/<task>.npz`` are compared, and how:

``predictions...`` or ``....predictions``, with ``labels``   right or wrong: McNemar
boolean arrays (n,)                                          right or wrong: McNemar
``<detector>.known`` with ``<detector>.<set>`` of ``ood``    AUROC: paired DeLong
an array (n,) whose mean is the metric of the same name      mean: sign flips
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput, NotFound
from embedkit.evaluate.context import BASELINES
from embedkit.evaluate.statistics import (
    Difference,
    Interval,
    Spread,
    mcnemar,
    over_seeds,
    paired_auroc,
    paired_mean,
)

__all__ = [
    "Comparison",
    "Stored",
    "are_the_same",
    "compare_reports",
    "missing_tasks",
    "read_report",
    "spread_of_reports",
]

Arrays = Mapping[str, npt.NDArray[np.generic]]

_MOST_REPORT_BYTES = 256 << 20
_KNOWN = "known"


@dataclass(frozen=True)
class Stored:
    """A report that was written before.

    Attributes:
        path: The ``report.json``.
        values: Its content.
    """

    path: Path
    values: Mapping[str, object]

    @property
    def results(self) -> dict[str, Mapping[str, object]]:
        """The entry of each task."""
        return {str(entry["task"]): entry for entry in _list(self.values["results"])}

    def digest(self, role: str) -> object:
        """Digest of the ``train`` or ``test`` images, or of every OOD set by name."""
        data = _mapping(self.values["data"])
        found = _mapping(data[role])
        if role != "ood":
            return found["digest"]
        return {name: _mapping(entry)["digest"] for name, entry in found.items()}

    def items(self, task: str) -> dict[str, npt.NDArray[np.generic]]:
        """The per-item arrays of a task; none if it has none.

        Raises:
            InvalidInput: If the file is not there or holds anything but plain arrays.
        """
        name = _mapping(self.values["items"]).get(task)
        if name is None:
            return {}
        path = self.path.parent / str(name)
        if path.parent.parent.resolve() != self.path.parent.resolve():
            raise InvalidInput(f"expected items beside {self.path}, got {name!r}")
        try:
            with np.load(path, allow_pickle=False) as stored:
                return {key: stored[key] for key in stored.files}
        except (OSError, ValueError, EOFError) as error:
            raise InvalidInput(f"expected arrays of {task!r} in {path}, got {error}") from error


@dataclass(frozen=True)
class Comparison:
    """What two reports say of one another.

    Attributes:
        differences: By ``<task>.<name>``, the second report less the first.
        skipped: Why a task was not compared, by task.
    """

    differences: Mapping[str, Difference]
    skipped: Mapping[str, str]


def read_report(path: str | Path) -> Stored:
    """Read ``report.json``, or that of a folder.

    Raises:
        NotFound: If there is none.
        InvalidInput: If it is not a report.
    """
    file = Path(path)
    file = file / "report.json" if file.is_dir() else file
    if not file.is_file():
        raise NotFound(f"expected a report at {file}, got no such file")
    if file.stat().st_size > _MOST_REPORT_BYTES:
        raise InvalidInput(f"expected a report of at most {_MOST_REPORT_BYTES} bytes at {file}")
    try:
        stored = Stored(file, json.loads(file.read_text(encoding="utf-8")))
        _ = stored.results, stored.digest("test"), _mapping(stored.values["items"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidInput(
            f"expected a report of embedkit eval at {file}, got {error!r}"
        ) from error
    return stored


def compare_reports(first: Stored, second: Stored) -> Comparison:
    """Compare every task whose items both reports have; the others are skipped.

    Raises:
        InvalidInput: If the reports are over other test images.
    """
    _check_same(first, second, "test")
    differences: dict[str, Difference] = {}
    skipped = missing_tasks([first, second])
    same_novel = first.digest("ood") == second.digest("ood")
    for task in first.results:
        if task in skipped:
            continue
        if task == "ood" and not same_novel:
            skipped[task] = "the reports have other OOD sets"
            continue
        pair = first.items(task), second.items(task)
        found = {
            f"{task}.{name}": difference
            for name, difference in _pairs(task, *pair, _means(first, second, task))
        }
        if not found:
            skipped[task] = "there are no items to compare in both reports"
        differences |= found
    return Comparison(differences, skipped)


def missing_tasks(reports: Sequence[Stored]) -> dict[str, str]:
    """Every task that some of the reports do not have, and which have it, in a sentence."""
    tasks = dict.fromkeys(task for report in reports for task in report.results)
    found = {}
    for task in tasks:
        having = [str(report.path) for report in reports if task in report.results]
        if len(having) < len(reports):
            found[task] = f"only {', '.join(having)} has it"
    return found


def are_the_same(first: Stored, second: Stored) -> bool:
    """Whether both reports are about one model and found the same, so one may be the other."""
    return first.path.resolve() == second.path.resolve() or (
        first.values.get("model") == second.values.get("model")
        and first.values["results"] == second.values["results"]
    )


def spread_of_reports(reports: list[Stored]) -> dict[str, Spread]:
    """Every metric that all reports have, by ``<task>.<metric>``, over training runs.

    Raises:
        InvalidInput: If there are fewer than two, or they are over other test images.
    """
    if len(reports) < 2:
        raise InvalidInput(f"expected at least 2 reports, got {len(reports)}")
    for other in reports[1:]:
        _check_same(reports[0], other, "test")
    found = [_metrics(report) for report in reports]
    names = [name for name in found[0] if all(name in other for other in found)]
    return {
        name: over_seeds([m[name][0] for m in found], [m[name][1] for m in found])
        for name in names
    }


def _pairs(
    task: str, first: Arrays, second: Arrays, means: Mapping[str, tuple[float, float]]
) -> Iterator[tuple[str, Difference]]:
    """Every difference that the items of one task allow."""
    for name in first:
        one, other = first[name], second.get(name)
        if other is None or one.shape != other.shape or not len(one):
            continue
        if any(baseline in name for baseline in BASELINES):
            continue
        if "predictions" in name and one.ndim == 1:
            right = _right(first, name), _right(second, name)
            if right[0] is not None and right[1] is not None:
                yield name, mcnemar(right[0], right[1])
        elif one.dtype == np.bool_ and other.dtype == np.bool_ and one.ndim == 1:
            yield name, mcnemar(one.astype(np.bool_), other.astype(np.bool_))
        elif task == "ood":
            yield from _areas(name, first, second)
        elif (
            name in means and _is_mean(one, means[name][0]) and _is_mean(other, means[name][1])
        ):
            yield name, paired_mean(one.astype(np.float64), other.astype(np.float64))


def _areas(name: str, first: Arrays, second: Arrays) -> Iterator[tuple[str, Difference]]:
    """The AUROC of one detector on one set."""
    detector, _, novel = name.partition(".")
    base = f"{detector}.{_KNOWN}"
    if novel == _KNOWN or base not in first or base not in second:
        return
    scores = [(arrays[base], arrays[name]) for arrays in (first, second)]
    if min(len(part) for part in scores[0]) < 2 or first[base].shape != second[base].shape:
        return
    pair = [(k.astype(np.float64), n.astype(np.float64)) for k, n in scores]
    yield f"{novel}.{detector}.auroc", paired_auroc(*pair)


def _right(arrays: Arrays, name: str) -> npt.NDArray[np.bool_] | None:
    labels = arrays.get("labels")
    if labels is None or labels.shape != arrays[name].shape:
        return None
    return np.asarray(arrays[name] == labels)


def _is_mean(values: npt.NDArray[np.generic], mean: float) -> bool:
    if values.ndim != 1 or values.dtype.kind not in "fiu":
        return False
    numbers = values.astype(np.float64)
    return bool(np.isfinite(numbers).all() and abs(numbers.mean() - mean) < 1e-6)


def _means(first: Stored, second: Stored, task: str) -> dict[str, tuple[float, float]]:
    one, other = _metrics(first), _metrics(second)
    start = f"{task}."
    return {
        name.removeprefix(start): (value, other[name][0])
        for name, (value, _) in one.items()
        if name.startswith(start) and name in other
    }


def _metrics(report: Stored) -> dict[str, tuple[float, Interval | None]]:
    """Value and interval of each metric that has a value."""
    found: dict[str, tuple[float, Interval | None]] = {}
    for task, entry in report.results.items():
        for name, metric in _mapping(entry["metrics"]).items():
            value, ci = _mapping(metric)["value"], _mapping(metric)["ci"]
            if isinstance(value, int | float):
                ends = [v for v in ci if v is not None] if isinstance(ci, list) else []
                interval = (float(ends[0]), float(ends[1])) if len(ends) == 2 else None
                found[f"{task}.{name}"] = float(value), interval
    return found


def _check_same(first: Stored, second: Stored, role: str) -> None:
    if first.digest(role) != second.digest(role):
        raise InvalidInput(
            f"expected two reports over the same {role} images, got {first.path} over "
            f"{first.digest(role)} and {second.path} over {second.digest(role)}"
        )


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise TypeError(f"expected a table, got {type(value).__name__}")
    return value


def _list(value: object) -> list[Mapping[str, object]]:
    if not isinstance(value, list):
        raise TypeError(f"expected a list, got {type(value).__name__}")
    return [_mapping(entry) for entry in value]
