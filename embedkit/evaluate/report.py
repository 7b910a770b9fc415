"""Report: what was measured, on which model, with which data, by which code."""

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import numpy as np

from embedkit.data.dataset import Dataset
from embedkit.evaluate.context import Context
from embedkit.evaluate.gate import GateResult
from embedkit.evaluate.html.junit import to_junit
from embedkit.evaluate.task import TaskResult
from embedkit.preprocess import InputSpec
from embedkit.runtime.environment import code_digest
from embedkit.types import Embedder

__all__ = [
    "ITEMS",
    "SCHEMA_VERSION",
    "Report",
    "Subject",
    "describe_run",
    "study_report",
    "write_report",
]

SCHEMA_VERSION = 1
ITEMS = "items"
_PACKAGES = ("numpy", "scipy", "scikit-learn", "onnxruntime", "torch")


@dataclass(frozen=True)
class Subject:
    """The model that is measured, and how it was reached.

    Attributes:
        name: Model name, or empty.
        version: Model version, or empty.
        transport: ``grpc`` for a served model, ``in-process`` for one in this process.
        address: Server address, or empty.
        provider: What runs the served model, as the server names it; or empty.
        precision: Of its graph: ``fp32``, ``fp16`` or ``int8``; or empty.
    """

    name: str = ""
    version: str = ""
    transport: Literal["grpc", "in-process"] = "in-process"
    address: str = ""
    provider: str = ""
    precision: str = ""


@dataclass(frozen=True)
class Report:
    """The outcome of one run.

    Attributes:
        model: Name, version, transport, provider, precision, digest, dimensions and input of
            the model.
        data: Name, size, classes and digest of each data set.
        run: When, with which settings, and by which code.
        results: One per task, in the order they ran.
        timing: Seconds per task; they vary from run to run, so they are kept apart.
        problems: Why the run is invalid; empty if it is valid.
        gates: Outcome of each gate.
    """

    model: Mapping[str, object]
    data: Mapping[str, object]
    run: Mapping[str, object]
    results: tuple[TaskResult, ...]
    timing: Mapping[str, float] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    gates: tuple[GateResult, ...] = ()

    @property
    def is_valid(self) -> bool:
        """Whether one and the same model answered from beginning to end."""
        return not self.problems

    @property
    def is_empty(self) -> bool:
        """Whether every task was skipped, so that nothing was measured."""
        return all(result.status == "skipped" for result in self.results)

    @property
    def exit_code(self) -> int:
        """0, or 1 if it is invalid, measured nothing, or a task or a gate failed."""
        failed = any(result.status == "failed" for result in self.results)
        gates = all(gate.passed for gate in self.gates)
        return 0 if self.is_valid and gates and not failed and not self.is_empty else 1

    def to_dict(self) -> dict[str, object]:
        """The content of ``report.json``, as ``report.schema.json`` describes it."""
        return {
            "schema_version": SCHEMA_VERSION,
            "status": "valid" if self.is_valid else "invalid",
            "problems": list(self.problems),
            "model": dict(self.model),
            "data": dict(self.data),
            "run": dict(self.run),
            "results": [result.to_dict() for result in self.results],
            "gates": [asdict(gate) for gate in self.gates],
            "timing": dict(self.timing),
            "items": {r.task: f"{ITEMS}/{r.task}.npz" for r in self.results if r.items},
            "figures": {r.task: dict(r.figures) for r in self.results if r.figures},
        }


def describe_run(
    context: Context, subject: Subject, suite: tuple[str, ...], started: str
) -> tuple[dict[str, object], dict[str, object], dict[str, object]]:
    """Return the ``model``, ``data`` and ``run`` blocks of a report."""
    model = {
        **asdict(subject),
        "digest": context.served.digest,
        "dim": int(context.served.dim),
        "input": context.spec.to_dict(),
    }
    data = {
        "train": _describe(context.train),
        "test": _describe(context.test),
        "ood": {name: _describe(dataset) for name, dataset in context.ood.items()},
        "shifted": {name: _describe(dataset) for name, dataset in context.shifted.items()},
    }
    run = _describe_run(started, context.seed, suite, asdict(context.options))
    return model, data, run


def study_report(
    result: TaskResult,
    subject: tuple[Subject, Embedder],
    data: tuple[Dataset, Dataset],
    run: tuple[str, int, Mapping[str, object]],
) -> Report:
    """Return the report of a study, which trained the models that it measured.

    Args:
        result: What it found.
        subject: The model that the metrics are about.
        data: Training and test images.
        run: When it started, its seed and its settings.
    """
    about, model = subject
    started, seed, settings = run
    stated = getattr(model, "input", None)
    return Report(
        {
            **asdict(about),
            "digest": model.digest,
            "dim": int(model.dim),
            "input": stated.to_dict() if isinstance(stated, InputSpec) else {},
        },
        {"train": _describe(data[0]), "test": _describe(data[1]), "ood": {}, "shifted": {}},
        _describe_run(started, seed, (result.task,), settings),
        (result,),
    )


def write_report(report: Report, folder: str | Path) -> None:
    """Write ``report.json``, ``items/<task>.npz``, ``junit.xml`` and ``report.html``.

    The JSON comes first, so that a failure to draw the page loses no number. A report that
    cannot be written leaves the one before it as it is, with its items.

    Args:
        report: What to write.
        folder: Created if absent; files of an earlier report are replaced, and the items of
            tasks that it has and this one has not are removed.
    """
    root = Path(folder)
    earlier = _items_of(root)
    values = report.to_dict()
    text = json.dumps(values, indent=1, allow_nan=False) + "\n"
    _write_items(report, root / ITEMS)
    _replace(root / "report.json", text)
    # Only now: until the new report is there, the old one has its items.
    for stale in earlier - _items_of(root):
        stale.unlink(missing_ok=True)
    _replace(root / "junit.xml", to_junit(values))
    from embedkit.evaluate.html import render

    _replace(root / "report.html", render(values))


def _describe_run(
    started: str, seed: int, suite: tuple[str, ...], options: Mapping[str, object]
) -> dict[str, object]:
    return {
        "started": started,
        "seed": seed,
        "suite": list(suite),
        "options": dict(options),
        "code": {"version": _version("embedkit") or "unknown", "digest": code_digest()},
        "versions": {"python": platform.python_version(), **_versions()},
    }


def _describe(dataset: Dataset) -> dict[str, object]:
    return {
        "name": dataset.name,
        "n": len(dataset),
        "digest": dataset.digest,
        "class_names": list(dataset.class_names) if dataset.labels is not None else [],
        "skipped": len(dataset.skipped),
    }


def _items_of(root: Path) -> set[Path]:
    """The files of items that the report in a folder names; none if there is no report."""
    try:
        named = json.loads((root / "report.json").read_text(encoding="utf-8"))["items"]
        return {root / ITEMS / f"{task}.npz" for task in named if task == Path(task).name}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _write_items(report: Report, folder: Path) -> None:
    """Write the arrays of every task, and replace none before all are written."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for result in report.results:
        if result.items:
            path = folder / f"{result.task}.npz"
            with _part(path).open("wb") as file:
                np.savez_compressed(file, **dict(result.items))  # type: ignore[arg-type]
            written.append(path)
    for path in written:
        _part(path).replace(path)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _versions() -> dict[str, str]:
    found = {package: _version(package) for package in _PACKAGES}
    return {package: number for package, number in found.items() if number}


def _replace(path: Path, text: str) -> None:
    _part(path).write_text(text, encoding="utf-8")
    _part(path).replace(path)


def _part(path: Path) -> Path:
    """The name of a file until it is whole."""
    return path.with_name(f".{path.name}.part")
