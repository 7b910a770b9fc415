"""Rows of the leaderboard over seeds: means, spreads, and what is compared with what."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tools.board.entries import Entry, entries
from tools.board.record import Record, wanted

__all__ = ["COLUMNS", "Column", "Row", "pooled_sd", "prediction", "rows"]


@dataclass(frozen=True)
class Column:
    """One measure.

    Attributes:
        title: Head of the column.
        meaning: What it is, for the list below the table.
        read: The value of one run, or None.
        form: How a mean and its spread are written.
    """

    title: str
    meaning: str
    read: Callable[[Record], float | None]
    form: str = "{:.3f}"


def _metric(name: str) -> Callable[[Record], float | None]:
    return lambda record: record.value(name)


def _training(name: str) -> Callable[[Record], float | None]:
    def read(record: Record) -> float | None:
        value = record.training.get(name)
        return value if isinstance(value, int | float) else None

    return read


def _seconds(precision: str) -> Callable[[Record], float | None]:
    """Processor seconds of the runs in one precision."""

    def read(record: Record) -> float | None:
        return _training("cpu_seconds")(record) if record.precision == precision else None

    return read


def _right(name: str) -> Callable[[Record], float | None]:
    """One minus an error."""

    def read(record: Record) -> float | None:
        error = record.value(name)
        return None if error is None else 1 - error

    return read


COLUMNS: Mapping[str, Column] = {
    "knn": Column(
        "kNN", "vote of 20 neighbours (T = 0.07), 10,000 test images", _metric("knn.top1")
    ),
    "linear": Column(
        "linear",
        "logistic regression on embeddings by L-BFGS, C from held-out training images",
        _metric("linear.top1"),
    ),
    "sgd": Column(
        "linear, SGD",
        "the same by momentum SGD, 10 epochs, without regularisation",
        _metric("linear.top1_sgd"),
    ),
    "few_shot": Column(
        "5 shots",
        "logistic regression on 5 images per class, mean of 5 draws",
        _metric("few_shot.top1_logistic_n5"),
    ),
    "kmnist": Column(
        "OOD KMNIST",
        "AUROC of the distance to 50 neighbours against 2,000 characters",
        _metric("ood.kmnist_test.knn.auroc"),
    ),
    "notmnist": Column(
        "OOD notMNIST", "against 2,000 letters", _metric("ood.notmnist_test.knn.auroc")
    ),
    "corruption": Column(
        "corrupted",
        "kNN accuracy over the 15 common corruptions at severity 3, 300 images each",
        _right("corruption.error"),
    ),
    "pgd": Column(
        "PGD 2/255",
        "accuracy under white-box PGD, 10 steps, Linf radius 2/255, 100 images",
        _metric("robustness.pgd.2.accuracy"),
    ),
    "square": Column(
        "Square 8/255",
        "accuracy under 100 black-box queries, Linf radius 8/255, 100 images",
        _metric("robustness.square.8.accuracy"),
    ),
    "uniformity": Column(
        "uniformity",
        "log mean Gaussian potential of test embeddings, lower is more even",
        _metric("geometry.uniformity"),
        "{:.2f}",
    ),
    "rank": Column(
        "rank", "effective rank of the test embeddings", _metric("geometry.rankme"), "{:.1f}"
    ),
    "seconds": Column(
        "s", "processor seconds of the training in bf16", _seconds("bf16"), "{:.0f}"
    ),
    "seconds_fp32": Column(
        "s, fp32",
        "processor seconds in float32, on processors without bf16",
        _seconds("fp32"),
        "{:.0f}",
    ),
    "memory": Column(
        "MB", "peak memory of the process while training", _training("peak_mb"), "{:.0f}"
    ),
}


@dataclass(frozen=True)
class Row:
    """One entry with its finished runs.

    Attributes:
        entry: What was trained.
        runs: Records that agree with the present recipe and code, by seed.
        failures: Why others failed.
    """

    entry: Entry
    runs: tuple[Record, ...] = ()
    failures: tuple[str, ...] = field(default=())

    def values(self, column: str) -> list[float]:
        """The measure of each run that has it."""
        found = [COLUMNS[column].read(run) for run in self.runs]
        return [value for value in found if value is not None and math.isfinite(value)]

    def mean(self, column: str) -> float | None:
        """Over the runs; None without any."""
        values = self.values(column)
        return float(np.mean(values)) if values else None

    def sd(self, column: str) -> float | None:
        """Standard deviation over the runs, n - 1; None with fewer than two."""
        values = self.values(column)
        return float(np.std(values, ddof=1)) if len(values) > 1 else None

    def over(self, other: "Row", column: str) -> list[float]:
        """Differences from another row, seed by seed."""
        theirs = {run.seed: COLUMNS[column].read(run) for run in other.runs}
        found = []
        for run in self.runs:
            mine, its = COLUMNS[column].read(run), theirs.get(run.seed)
            if mine is not None and its is not None:
                found.append(mine - its)
        return found


def rows(records: Sequence[Record]) -> dict[str, Row]:
    """Every entry by name, with the runs that agree with the present recipe and code."""
    made = {}
    for entry in entries():
        own = sorted((r for r in records if r.row == entry.name), key=lambda r: r.seed)
        plans = {r.seed: wanted(entry, r.seed, "") for r in own}
        agree = [
            r for r in own if (r.recipe, r.code) == (plans[r.seed].recipe, plans[r.seed].code)
        ]
        made[entry.name] = Row(
            entry,
            tuple(r for r in agree if r.status == "ok"),
            tuple(f"seed {r.seed}: {r.problem}" for r in agree if r.status != "ok"),
        )
    return made


def pooled_sd(table: Mapping[str, Row], column: str) -> tuple[float, int]:
    """Standard deviation over seeds, pooled over trained rows, and its degrees of freedom.

    Three runs say little of their spread; those of all rows say more.
    """
    squares, freedom = 0.0, 0
    for row in table.values():
        values = row.values(column)
        if len(values) > 1 and row.entry.kind != "nothing":
            squares += float(np.var(values, ddof=1)) * (len(values) - 1)
            freedom += len(values) - 1
    return (math.sqrt(squares / freedom), freedom) if freedom else (math.nan, 0)


def prediction(
    table: Mapping[str, Row], name: str, column: str, level: float = 0.95
) -> tuple[float, float, float] | None:
    """Mean and the interval in which one further run with another seed falls.

    Student's t with the pooled spread: ``mean ± t * sd * sqrt(1 + 1 / n)``. None before two
    runs of any row are there. It says nothing of other machines or versions of torch.
    """
    from scipy.special import stdtrit

    row = table[name]
    (sd, freedom), n = pooled_sd(table, column), len(row.values(column))
    if not n or not freedom:
        return None
    own = row.sd(column)
    # A row that varies more than most is not given the spread of the others.
    spread = max(sd, own or 0.0)
    half = float(stdtrit(freedom, 0.5 + level / 2)) * spread * math.sqrt(1 + 1 / n)
    mean = row.mean(column) or 0.0
    return mean, mean - half, mean + half
