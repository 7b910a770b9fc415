"""What a filter says, as values, and what it means.

This is the definition of the language's semantics; the SQL gives the same answers faster.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from operator import ge, gt, le, lt
from typing import Any

__all__ = [
    "All",
    "AnyOf",
    "Exists",
    "Expression",
    "Key",
    "Leaf",
    "Like",
    "Not",
    "OneOf",
    "Ordered",
    "Scalar",
    "Unequal",
    "holds",
    "leaf_holds",
]

Key = tuple[str, ...]
Scalar = str | int | float | bool | None
_ABSENT = object()
_ORDERS: dict[str, Callable[[Any, Any], Any]] = {"<": lt, "<=": le, ">": gt, ">=": ge}


@dataclass(frozen=True, slots=True)
class OneOf:
    """The value equals one of some: ``=`` with one, ``in`` with several."""

    key: Key
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Unequal:
    """The value is of the same type and another; any value but null, against null."""

    key: Key
    value: Scalar


@dataclass(frozen=True, slots=True)
class Ordered:
    """The value is of the same type and on one side of another.

    Attributes:
        key: Where the value is.
        operator: One of ``< <= > >=``.
        bound: A number, or a text, which compares by code point.
    """

    key: Key
    operator: str
    bound: str | int | float


@dataclass(frozen=True)
class Like:
    r"""The value is a text that the pattern fits as a whole, upper and lower case apart.

    Attributes:
        key: Where the value is.
        pattern: ``%`` stands for any text, ``_`` for one character, ``\`` before either or
            before itself for that character.
    """

    key: Key
    pattern: str

    @cached_property
    def pieces(self) -> tuple[re.Pattern[str], ...]:
        """What is between the ``%``, each of a fixed length: matching never explodes."""
        pieces, current = [], ""
        characters = iter(self.pattern)
        for character in characters:
            if character == "%":
                pieces.append(current)
                current = ""
            elif character == "_":
                current += "."
            else:
                literal = next(characters, "\\") if character == "\\" else character
                current += re.escape(literal)
        return tuple(re.compile(piece, re.DOTALL) for piece in [*pieces, current])

    def fits(self, text: str) -> bool:
        """Whether the whole text fits."""
        first, *others = self.pieces
        if not others:
            return first.fullmatch(text) is not None
        found = first.match(text)
        if found is None:
            return False
        *middle, last = others
        # The leftmost place leaves the most room for what follows.
        for piece in middle:
            found = piece.search(text, found.end())
            if found is None:
                return False
        start = len(text) - _width(last)
        return start >= found.end() and last.fullmatch(text, start) is not None


@dataclass(frozen=True, slots=True)
class Exists:
    """The key is there, whatever its value; null too."""

    key: Key


Leaf = OneOf | Unequal | Ordered | Like | Exists


@dataclass(frozen=True, slots=True)
class Not:
    """The operand does not hold."""

    operand: "Expression"


@dataclass(frozen=True, slots=True)
class All:
    """Every part holds; at least two."""

    parts: tuple["Expression", ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Some part holds; at least two."""

    parts: tuple["Expression", ...]


Expression = Leaf | Not | All | AnyOf


def holds(
    expression: Expression, payload: object, check: Callable[[], None] | None = None
) -> bool:
    """Whether a filter holds for a payload: a parsed JSON object, or None for no payload.

    Args:
        expression: The filter.
        payload: What it is asked about.
        check: Called before each comparison; ends the work by raising.
    """
    if isinstance(expression, Not):
        return not holds(expression.operand, payload, check)
    if isinstance(expression, All):
        return all(holds(part, payload, check) for part in expression.parts)
    if isinstance(expression, AnyOf):
        return any(holds(part, payload, check) for part in expression.parts)
    if check is not None:
        check()
    value: object = payload
    for part in expression.key:
        value = value.get(part, _ABSENT) if isinstance(value, Mapping) else _ABSENT
    return value is not _ABSENT and leaf_holds(expression, value)


def leaf_holds(leaf: Leaf, value: object) -> bool:
    """Whether a comparison holds for a value that is there: any parsed JSON."""
    if isinstance(leaf, Exists):
        return True
    if isinstance(leaf, Like):
        return isinstance(value, str) and leaf.fits(value)
    kind = _kind(value)
    if isinstance(leaf, OneOf):
        return any(kind == _kind(v) and value == v for v in leaf.values)
    if isinstance(leaf, Unequal):
        if leaf.value is None:
            return value is not None
        return kind == _kind(leaf.value) and value != leaf.value
    return kind == _kind(leaf.bound) and bool(_ORDERS[leaf.operator](value, leaf.bound))


def _kind(value: object) -> str:
    """The type as JSON sees it; integers and other numbers are one."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "text"
    return "null" if value is None else "other"


def _width(piece: re.Pattern[str]) -> int:
    """Characters that a piece matches."""
    return len(re.sub(r"\\(.)", ".", piece.pattern, flags=re.DOTALL))
