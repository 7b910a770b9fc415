"""Two reports over the same images, compared item by item.

Which arrays of ``items/<task>.npz`` are compared, and how:

``predictions...`` or ``....predictions``, with ``labels``   right or wrong: McNemar
boolean arrays (n,)                                          right or wrong: McNemar
``<detector>.known`` with ``<detector>.<set>`` of ``ood``    AUROC: paired DeLong
an array (n,) whose mean is the metric of the same name      mean: sign flips
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from embedkit.evaluate.context import BASELINES
from embedkit.evaluate.measurement.comparison.direction import higher_is_better
from embedkit.evaluate.measurement.comparison.notes import (
    is_about,
    left_out,
    missing_tasks,
    notes_on,
)
from embedkit.evaluate.measurement.comparison.pairing import (
    Entries,
    common_rows,
    entries_of,
    unequal_keys,
)
from embedkit.evaluate.measurement.comparison.stored import (
    Arrays,
    Stored,
    StoredMetric,
    check_same,
)
from embedkit.evaluate.statistics import Difference, mcnemar, paired_auroc, paired_mean

__all__ = ["Comparison", "compare_reports"]

_KNOWN = "known"
_OTHER_SETS = "the reports have other OOD sets"
# Arrays of models that are not the ones compared.
_OTHERS = (*BASELINES, "reference_")

Row = tuple[str, Difference | str]
"""Name without the task's, and the difference or why there is none."""


@dataclass(frozen=True)
class Comparison:
    """What two reports say of one another.

    Attributes:
        differences: By ``<task>.<name>``, the second report less the first.
        skipped: Why something was not compared, by task or by ``<task>.<name>``.
        notes: What else sets the reports apart.
    """

    differences: Mapping[str, Difference]
    skipped: Mapping[str, str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Pair:
    """Both reports' items of one task."""

    task: str
    reports: tuple[Stored, Stored]
    arrays: tuple[Arrays, Arrays]
    metrics: tuple[Mapping[str, StoredMetric], Mapping[str, StoredMetric]]
    other_sets: Mapping[str, str] = field(default_factory=dict)


def compare_reports(first: Stored, second: Stored) -> Comparison:
    """Compare every task whose items both reports have; the others are skipped.

    Raises:
        InvalidInput: If the reports are over other test images.
    """
    check_same(first, second)
    reports, metrics = (first, second), (first.metrics, second.metrics)
    differences: dict[str, Difference] = {}
    skipped, notes = missing_tasks(reports), [*notes_on(reports)]
    for task in first.results:
        if task in skipped:
            continue
        arrays = first.items(task), second.items(task)
        rows = dict(_rows(_Pair(task, reports, arrays, metrics, left_out(reports))))
        found = {f"{task}.{name}": d for name, d in rows.items() if not isinstance(d, str)}
        reasons = {f"{task}.{name}": why for name, why in rows.items() if isinstance(why, str)}
        if not found:
            why = "; ".join(dict.fromkeys(reasons.values()))
            skipped[task] = why or "there are no items to compare in both reports"
        else:
            skipped |= reasons
        differences |= found
        notes += [f"{task}: {note}" for note in unequal_keys(*arrays)]
    return Comparison(differences, skipped, tuple(notes))


def _rows(pair: _Pair) -> Iterator[Row]:
    """Every difference that the items of one task allow."""
    first, second = pair.arrays
    for name in first:
        one, other = first[name], second.get(name)
        if other is None or one.ndim != 1 or other.ndim != 1 or not len(one) or not len(other):
            continue
        if any(model in name for model in _OTHERS):
            continue
        if is_about(f"{pair.task}.{name}.", pair.other_sets):
            yield name, _OTHER_SETS
        elif pair.task == "ood":
            yield from _areas(name, pair)
        elif (found := _difference(name, pair)) is not None:
            yield found


def _difference(name: str, pair: _Pair) -> Row | None:
    """The right answers or the mean of one array; None if it is neither."""
    first, second = (entries_of(arrays, name) for arrays in pair.arrays)
    right = [_right(arrays, name) for arrays in pair.arrays]
    if right[0] is not None and right[1] is not None:
        first, second = replace(first, values=right[0]), replace(second, values=right[1])
    elif not _are_bools(first, second) and not _are_means(
        f"{pair.task}.{name}", first.values, second.values, pair
    ):
        return None
    if first.name != second.name:
        return name, "only one of the reports says which images were attacked"
    rows = common_rows((first, second), pair.arrays, pair.reports)
    if isinstance(rows, str):
        return first.name, rows
    one, other = first.values[rows[0]], second.values[rows[1]]
    higher = higher_is_better(f"{pair.task}.{first.name}", pair.metrics[0])
    if _are_bools(first, second):
        return first.name, mcnemar(
            one.astype(np.bool_), other.astype(np.bool_), true_is_good=higher
        )
    found = paired_mean(one.astype(np.float64), other.astype(np.float64))
    return first.name, replace(found, higher_is_better=higher)


def _areas(name: str, pair: _Pair) -> Iterator[Row]:
    """The AUROC of one detector on one set."""
    first, second = pair.arrays
    detector, _, novel = name.partition(".")
    base = f"{detector}.{_KNOWN}"
    if novel not in pair.reports[0].novel or base not in first or base not in second:
        return
    scores = [(arrays[base], arrays[name]) for arrays in (first, second)]
    if any(one.shape != other.shape for one, other in zip(*scores, strict=True)):
        return
    if min(len(part) for part in scores[0]) < 2:
        return
    each = [(k.astype(np.float64), n.astype(np.float64)) for k, n in scores]
    yield f"{novel}.{detector}.auroc", paired_auroc(*each)


def _right(arrays: Arrays, name: str) -> npt.NDArray[np.bool_] | None:
    """Which predictions are right; None if the array is none of predictions."""
    labels = arrays.get("labels")
    if "predictions" not in name or labels is None or labels.shape != arrays[name].shape:
        return None
    return np.asarray(arrays[name] == labels)


def _are_bools(first: Entries, second: Entries) -> bool:
    return first.values.dtype == np.bool_ and second.values.dtype == np.bool_


def _are_means(
    name: str, one: npt.NDArray[np.generic], other: npt.NDArray[np.generic], pair: _Pair
) -> bool:
    """Whether the metric of this name is the mean of the array, in both reports."""
    for values, metrics in zip((one, other), pair.metrics, strict=True):
        if values.dtype.kind not in "fiu" or name not in metrics:
            return False
        numbers = values.astype(np.float64)
        if not np.isfinite(numbers).all() or abs(numbers.mean() - metrics[name].value) >= 1e-6:
            return False
    return True
