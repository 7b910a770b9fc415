"""Registries: the implementations of a contract, found by file name.

A plural package (``train.objectives``) holds one method per module and the module's name is the
method's name, so listing imports nothing. Third parties add methods with an entry point whose
group is the dotted package name (``embedkit.train.objectives``).
"""

import ast
import difflib
import importlib
import importlib.util
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Generic, TypeVar

from embedkit.errors import InvalidInput

__all__ = ["Registry"]

T = TypeVar("T")


class Registry(Generic[T]):
    """The named implementations of one contract.

    Args:
        package: Dotted name of the plural package, e.g. ``embedkit.train.objectives``.
        noun: What one entry is called in messages, e.g. ``objective``.
        exclude: Modules of the package that are not methods.

    Example:
        >>> from embedkit.registry import Registry
        >>> Registry("embedkit.detect.detectors", "detector").names()[:1]
        ('knn',)
    """

    def __init__(self, package: str, noun: str, *, exclude: tuple[str, ...] = ()) -> None:
        self.package = package
        self.noun = noun
        self._exclude = exclude
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that records the decorated object under ``name``.

        Raises:
            InvalidInput: If the name is taken by another object.
        """

        def record(entry: T) -> T:
            if name in self._entries:
                raise InvalidInput(
                    f"expected a new {self.noun} name, got {name!r} a second time"
                )
            self._entries[name] = entry
            return entry

        return record

    def names(self) -> tuple[str, ...]:
        """Every known name, sorted; imports none of the implementations."""
        return tuple(sorted({*self._files(), *self._plugins(), *self._entries}))

    def summary(self, name: str) -> str:
        """First line of the method's own documentation; read from the file, not imported."""
        path = self._files().get(name)
        if path is None:
            plugin = self._plugins().get(name)
            return f"from {plugin.value}" if plugin else ""
        tree = ast.parse(path.read_text(encoding="utf-8"))
        documented = [
            node
            for node in tree.body
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.decorator_list
        ]
        text = ast.get_docstring(documented[0] if documented else tree)
        return (text or "").split("\n", 1)[0]

    def get(self, name: str) -> T:
        """Return the implementation called ``name``, importing its module if needed.

        Raises:
            InvalidInput: If there is none; the message suggests the nearest name.
        """
        if name not in self._entries:
            self._load(name)
        return self._entries[name]

    def _load(self, name: str) -> None:
        if name in self._files():
            importlib.import_module(f"{self.package}.{name}")
        elif name in self._plugins():
            self._plugins()[name].load()
        else:
            raise InvalidInput(self._unknown(name))
        if name not in self._entries:
            raise InvalidInput(
                f"expected {self.package}.{name} to register the {self.noun} {name!r}, "
                "got no such registration"
            )

    def _unknown(self, name: str) -> str:
        known = self.names()
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"unknown {self.noun} {name!r}{hint} (known: {', '.join(known)})"

    def _files(self) -> dict[str, Path]:
        spec = importlib.util.find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            return {}
        folder = Path(spec.submodule_search_locations[0])
        return {
            p.stem: p
            for p in folder.glob("*.py")
            if not p.stem.startswith("_") and p.stem not in self._exclude
        }

    def _plugins(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.package)}
