"""Recipes as files that a person reads, written from the leaderboard's table.

``recipes/fashion_mnist`` is what the leaderboard runs; ``recipes/cifar10`` the same objectives
under the conditions of published tables, for a GPU.
"""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from embedkit.train import settings
from embedkit.train.objective import objectives
from embedkit.train.recipe import Recipe
from embedkit.train.recipe_text import dump_toml
from tools.board.entries import Entry, find
from tools.board.published import CIFAR10, cifar10_recipe
from tools.board.record import RESULTS, read_all
from tools.board.summary import Row, prediction, rows

__all__ = ["FOLDERS", "recipe_texts"]

FOLDERS = ("fashion_mnist", "cifar10")
_EXPECTED = {"knn.top1": "knn", "linear.top1": "linear"}


def recipe_texts(results: Path = RESULTS) -> dict[str, str]:
    """Content of every recipe file, by ``<folder>/<objective>.toml``.

    Args:
        results: Records of the leaderboard, which state what is expected.
    """
    table = rows(read_all(results))
    texts = {}
    for name in objectives.names():
        texts[f"fashion_mnist/{name}.toml"] = _fashion(find(name), table)
        texts[f"cifar10/{name}.toml"] = _cifar10(find(name))
    return texts


def _fashion(entry: Entry, table: Mapping[str, Row]) -> str:
    """What the leaderboard runs, with what it reached."""
    path = f"recipes/fashion_mnist/{entry.name}.toml"
    head = [
        f"# {entry.name} on 10,000 images of Fashion-MNIST, as in docs/leaderboard.md.",
        "#",
        *_command(path, "data.source=fashion_mnist.npz", entry, "fashion"),
        f"#   make reproduce RECIPE={path} \\",
        "#     REPRODUCE_ARGS='--set data.source=fashion_mnist.npz'",
    ]
    head += [f"#\n# {entry.note[0].upper()}{entry.note[1:]}."] if entry.note else []
    expected, words = _expected(entry, table)
    head += ["#", *(f"# {line}" for line in words)] if words else []
    return _text(head, entry.recipe(), expected)


def _expected(entry: Entry, table: Mapping[str, Row]) -> tuple[dict[str, object], list[str]]:
    """The ``[expected]`` section and a sentence on where it is from."""
    row = table[entry.name]
    expected: dict[str, object] = {}
    for metric, column in _EXPECTED.items():
        found = prediction(table, entry.name, column)
        if found is not None:
            mean, low, high = (round(value, 4) for value in found)
            expected |= {metric: mean, f"{metric}.interval": [low, high]}
    if not expected:
        return {}, ["Not run yet: no score is expected."]
    seconds = row.mean("seconds") or row.mean("seconds_fp32") or 0.0
    memory = row.mean("memory") or 0.0
    expected |= {"cpu_seconds": round(seconds), "memory_mb": round(memory)}
    runs = len(row.runs)
    return expected, [
        f"Expected: the mean of {runs} seed{'s' if runs > 1 else ''}, and the interval in",
        "which 95 % of further seeds fall (spread pooled over all objectives). Served, on all",
        "test images; linear is by L-BFGS. Seconds are of one core, memory is the process's.",
    ]


def _cifar10(entry: Entry) -> str:
    """Conditions of published tables; never run by the leaderboard."""
    path = f"recipes/cifar10/{entry.name}.toml"
    published = CIFAR10.get(entry.name)
    head = [
        f"# {entry.name} on CIFAR-10 with a ResNet-18 (3x3 stem, no pooling) for a CUDA GPU.",
        "#",
        *_command(path, "data.source=cifar10:FOLDER", entry, "cifar10"),
        "#",
        "# Not run by this project yet: there is no expected score, time or memory of its own.",
    ]
    if entry.objective in ("mae", "data2vec", "msn"):
        head[0] = f"# {entry.name} on CIFAR-10 with a small vision transformer for a CUDA GPU."
    if published:
        head += [f"# Published: {line}" for line in published]
    return _text(head, cifar10_recipe(entry), {})


def _command(path: str, data: str, entry: Entry, name: str) -> list[str]:
    """The commands that run a recipe, and those whose bundles it learns from."""
    lines = []
    for teacher in entry.teachers:
        before = path.replace(f"/{entry.name}.", f"/{teacher}.")
        lines += [
            f"#   embedkit train {before} --set {data} --out runs/{name}-{teacher}",
            f"#   embedkit export runs/{name}-{teacher} --name {teacher.replace('_', '-')}",
        ]
    return [*lines, f"#   embedkit train {path} --set {data} --out runs/{name}-{entry.name}"]


def _text(head: list[str], recipe: Recipe, expected: dict[str, object]) -> str:
    """Comment, settings that differ from nothing, and expectations."""
    table: dict[str, Any] = {k: v for k, v in recipe.to_dict().items() if k != "expected"}
    for section in ("optimiser", "schedule", "run", "projection"):
        table[section] = _shown(section, table[section])
    if expected:
        table["expected"] = expected
    return "\n".join(head) + "\n\n" + dump_toml({k: v for k, v in table.items() if v != {}})


_ALWAYS = {
    "optimiser": ("name", "lr", "weight_decay"),
    "schedule": ("epochs", "batch_size", "warmup_epochs"),
    "run": ("precision",),
    "projection": ("layers", "hidden", "dim"),
}


def _shown(section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """What a reader wants to see, and whatever differs from the default."""
    kind = getattr(settings, f"{section.capitalize()}Section")
    defaults = {f.name: f.default for f in fields(kind)}
    return {
        key: value
        for key, value in values.items()
        if key in _ALWAYS[section] or value != defaults[key]
    }
