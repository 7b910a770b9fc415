"""One finished run as a file, and what must agree for it to count as finished."""

import ast
import hashlib
import json
import os
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from embedkit.train.objective import objectives
from tools.board.entries import Entry

__all__ = ["PROTOCOL", "RESULTS", "Record", "code_of", "digest_of", "read_all", "wanted"]

PROTOCOL = 1
"""Raised by hand when the loop, the networks, the views or the evaluation change numbers."""

RESULTS = Path(__file__).resolve().parent.parent.parent / "docs" / "results" / "leaderboard"


@dataclass(frozen=True)
class Record:
    """What one run gave.

    Attributes:
        row: Name of the entry.
        seed: Of the run.
        recipe: Digest of its recipe, without paths and expectations.
        code: Digest of the objective's own code, with the protocol's number.
        package: Digest of the whole package when it ran.
        status: ``ok``, or ``failed`` with the reason in ``problem``.
        problem: Why it failed; empty if it did not.
        metrics: ``{value, ci, n}`` by ``<task>.<metric>``, as measured through the server.
        training: Seconds, processor seconds, images per second, memory, steps, loss, and
            the device with the precision used (bf16 where a record does not say).
        seconds: Of export and of each task.
        transport: ``grpc``, or ``in-process`` for raw pixels.
        versions: Of the packages.
        machine: Where it ran and how busy it was.
    """

    row: str
    seed: int
    recipe: str
    code: str
    package: str
    status: str = "ok"
    problem: str = ""
    metrics: dict[str, dict[str, object]] = field(default_factory=dict)
    training: dict[str, float | str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    transport: str = "grpc"
    versions: dict[str, str] = field(default_factory=dict)
    machine: dict[str, object] = field(default_factory=dict)

    def value(self, name: str) -> float | None:
        """One metric, or None where it was not measured."""
        found = self.metrics.get(name, {}).get("value")
        return float(found) if isinstance(found, int | float) else None

    @property
    def precision(self) -> str:
        """What the network was trained in: ``fp32`` or ``bf16``."""
        return "fp32" if str(self.training.get("device", "")).endswith("fp32") else "bf16"

    def path(self, folder: Path) -> Path:
        """The file of this row and seed."""
        return folder / f"{self.row}.{self.seed}.json"

    def write(self, folder: Path) -> Path:
        """Replace the file, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        path = self.path(folder)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        part.write_text(_text(asdict(self)), encoding="utf-8")
        part.replace(path)
        return path

    @classmethod
    def read(cls, path: Path) -> "Record | None":
        """The record of a file; None where there is none that can be read."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None


def _text(table: dict[str, object]) -> str:
    """A table as JSON with one line for each value, and for each value of an inner table."""
    parts = []
    for key, value in table.items():
        inner = json.dumps(value)
        if isinstance(value, dict) and value:
            rows = (f"  {json.dumps(name)}: {json.dumps(each)}" for name, each in value.items())
            inner = "{\n" + ",\n".join(rows) + "\n }"
        parts.append(f" {json.dumps(key)}: {inner}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def read_all(folder: Path) -> list[Record]:
    """Every record there is, by file name."""
    found = (Record.read(path) for path in sorted(folder.glob("*.json")))
    return [record for record in found if record is not None]


def wanted(entry: Entry, seed: int, package: str) -> Record:
    """The empty record of a run that has not happened yet."""
    return Record(entry.name, seed, digest_of(entry, seed), code_of(entry), package)


def digest_of(entry: Entry, seed: int) -> str:
    """Digest of the recipe with its published paths, without what it is expected to reach.

    The precision is left out too: it is the processor's choice, and the record names it.
    """
    if entry.kind == "nothing":
        text = f"{entry.objective} {dict(entry.changes)} {seed}"
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
    recipe = entry.recipe(seed)
    return replace(recipe, expected={}, run=replace(recipe.run, precision="bf16")).digest


def code_of(entry: Entry) -> str:
    """Digest of the objective's code and of the shared terms that it uses.

    The whole package changes with every line of any part of it; what is shared by all rows is
    covered by ``PROTOCOL``.
    """
    digest = hashlib.sha256(f"protocol {PROTOCOL}".encode())
    if entry.kind != "nothing":
        for file in _files(objectives.get(entry.objective).__module__):
            digest.update(f"{file.name}\0{_bare(file.read_text(encoding='utf-8'))}".encode())
    return "sha256:" + digest.hexdigest()


def _bare(source: str) -> str:
    """The code without comments and docstrings: what they say changes no number."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = [*node.body[1:]] or [ast.Pass()]
    return ast.unparse(tree)


def _files(module: str) -> list[Path]:
    """The module's file, and those of the terms whose functions it uses."""
    used = {getattr(value, "__module__", "") for value in vars(sys.modules[module]).values()}
    names = {name for name in used if str(name).startswith("embedkit.train.terms.")}
    return [Path(str(sys.modules[name].__file__)) for name in sorted({module, *names})]
