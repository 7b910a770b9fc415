"""Registries: the implementations of a contract, found by file name.

A plural package (``train.objectives``) holds one method per module and the module's name is the
method's name, so listing imports nothing. Third parties add methods with an entry point whose
group is the dotted package name (``embedkit.train.objectives``).
"""

import ast
import difflib
import importlib
import importlib.util
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, distributions
from itertools import cycle
from pathlib import Path
from typing import Generic, Literal, TypeGuard, TypeVar, Union

from embedkit.errors import InvalidInput

__all__ = ["Registry", "configure"]

T = TypeVar("T")

# First line of the documentation of what is registered under a name, as it is mostly written.
_REGISTERED = (
    r'''\.register\(["']{}["']\)\n(?:@[^\n]*\n)*(?:class|def) .*?:\n +r?"""([^\n"]*)'''
)


def configure(factory: Callable[..., T], arguments: Mapping[str, object], *, noun: str) -> T:
    """Call ``factory`` with arguments that came from a file, checking names and plain types.

    Lists (TOML and JSON have no tuples) become tuples.

    Args:
        factory: A frozen dataclass or a function; its annotations are the check.
        arguments: Keyword arguments by name.
        noun: What is being configured in messages, e.g. ``objective 'vicreg'``.

    Raises:
        InvalidInput: If an argument is unknown, missing or of another type.

    Example:
        >>> configure(lambda *, width=8: width, {"width": 24}, noun="encoder")
        24
    """
    parameters = inspect.signature(factory).parameters
    for name in arguments:
        if name not in parameters:
            raise InvalidInput(_unknown(f"argument of {noun}", name, parameters))
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in arguments:
            raise InvalidInput(f"expected {noun} with the argument {name!r}, got none")
    annotated: object = factory
    if isinstance(factory, type):
        annotated = factory.__init__  # type: ignore[misc]  # read, never called
    hints = typing.get_type_hints(annotated)
    values = {name: _tupled(value) for name, value in arguments.items()}
    for name, value in values.items():
        if not _fits(value, hints.get(name, object)):
            wanted = _in_words(hints[name])
            raise InvalidInput(f"expected {name} of {noun} as {wanted}, got {value!r}")
    return factory(**values)


def _unknown(noun: str, name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {noun} {name!r}{hint} (known: {', '.join(names)})"


def _tupled(value: object) -> object:
    return tuple(_tupled(item) for item in value) if isinstance(value, list) else value


def _in_words(hint: object) -> str:
    """An annotation as the writer of a file would say it."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin in (Union, types.UnionType):
        return " or ".join(_in_words(kind) for kind in inner if kind is not types.NoneType)
    if origin is tuple:
        kinds = [_in_words(kind) for kind in inner if kind is not Ellipsis]
        return f"a list of {kinds[0]}" if Ellipsis in inner else f"a list [{', '.join(kinds)}]"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "a table"
    return inspect.formatannotation(hint)


def _fits(value: object, hint: object) -> bool:
    """Whether ``value`` may stand where ``hint`` is annotated; unknown hints accept all."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return value in inner
    if origin in (Union, types.UnionType):
        return any(_fits(value, option) for option in inner)
    if origin is tuple and isinstance(value, tuple):
        same = inner[-1] is Ellipsis or len(value) == len(inner)
        return same and all(map(_fits, value, cycle(inner[:1]) if ... in inner else inner))
    kind = origin or hint
    if not isinstance(kind, type):
        return True
    if isinstance(value, bool):
        return kind in (bool, object)
    return isinstance(value, (int, float) if kind is float else kind)


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
        source = path.read_text(encoding="utf-8")
        # Parsing every method's file would take most of the time of ``embedkit list``.
        if found := re.search(_REGISTERED.format(re.escape(name)), source, re.DOTALL):
            return found[1].strip()
        tree = ast.parse(source)
        registered = (node for node in tree.body if _registers(node, name))
        text = next((ast.get_docstring(node) for node in registered), None)
        return (text or ast.get_docstring(tree) or "").split("\n", 1)[0]

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
            raise InvalidInput(_unknown(self.noun, name, self.names()))
        if name not in self._entries:
            raise InvalidInput(
                f"expected {self.package}.{name} to register the {self.noun} {name!r}, "
                "got no such registration"
            )

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
        points = _installed(tuple(sys.path))
        return {point.name: point for point in points if point.group == self.package}


@lru_cache(maxsize=1)
def _installed(_: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Entry points of every distribution on a path; finding them takes 20 ms or more."""
    return tuple(point for found in distributions() for point in found.entry_points)


def _registers(node: ast.stmt, name: str) -> TypeGuard[ast.ClassDef | ast.FunctionDef]:
    """Whether a statement is a class or function under ``@....register("name")``."""
    return isinstance(node, ast.ClassDef | ast.FunctionDef) and any(
        isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == "register"
        and [a.value for a in call.args if isinstance(a, ast.Constant)] == [name]
        for call in node.decorator_list
    )
