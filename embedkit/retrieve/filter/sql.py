r"""A filter as a condition of SQL over the column ``payload``.

What SQLite decides by itself is decided there: the type by ``json_type``, texts, and integers
of 64 bits. The rest asks ``expression``, so that both mean the same in every SQLite:

* payloads with a backslash: SQLite compares escaped keys letter by letter and ends texts at
  ``\u0000``; without a backslash no key can hold a quote, a backslash or a control character;
* fractions and larger integers close to what they are compared with, because SQLite rounds them
  otherwise than float64 is defined;
* patterns: SQLite's LIKE takes upper and lower case for the same;
* empty names in keys, and nesting deeper than the stack of SQLite's parser.
"""

import json
import re
import sqlite3
from dataclasses import dataclass
from functools import lru_cache

from embedkit.retrieve.filter.expression import (
    All,
    AnyOf,
    Exists,
    Expression,
    Key,
    Leaf,
    Like,
    Not,
    OneOf,
    Ordered,
    Unequal,
    holds,
    leaf_holds,
)
from embedkit.retrieve.filter.grammar import parse
from embedkit.retrieve.patience import Patience

__all__ = ["Condition", "condition"]

_MAX_NESTING = 12
_UNWRITTEN = re.compile(r'["\\\x00-\x1f]')
# Far above the rounding of SQLite, and far below what a filter tells apart.
_RELATIVE, _ABSOLUTE = 1e-9, 1e-300
_WHOLE = """CASE WHEN payload IS NULL THEN {empty}
WHEN instr(payload, char(92)) THEN embedkit_holds(payload)
ELSE {native} END"""


@dataclass(frozen=True, eq=False)
class Condition:
    """A filter that SQLite can run.

    Attributes:
        sql: A condition over the column ``payload``, with names for everything the user wrote.
        parameters: The values of the names.
        expression: What it means.
        leaves: The comparisons that SQL refers to by number.
    """

    sql: str
    parameters: dict[str, str | int | float]
    expression: Expression
    leaves: tuple[Leaf, ...]

    def prepare(self, connection: sqlite3.Connection, patience: Patience) -> None:
        """Give a connection the functions that the condition calls, for its next statement.

        Args:
            connection: Runs the statement.
            patience: How long it is waited for; asked before each comparison in Python, because
                SQLite's own steps are too far apart for that.
        """
        expression, leaves, check = self.expression, self.leaves, patience.check

        def whole(payload: str) -> bool:
            return holds(expression, json.loads(payload), check)

        def number(place: int, written: str) -> bool:
            check()
            return leaf_holds(leaves[place], json.loads(written))

        def text(place: int, value: str) -> bool:
            check()
            return leaf_holds(leaves[place], value)

        connection.create_function("embedkit_holds", 1, whole, deterministic=True)
        connection.create_function("embedkit_number", 2, number, deterministic=True)
        connection.create_function("embedkit_text", 2, text, deterministic=True)


@lru_cache(256)
def condition(text: str) -> Condition | None:
    """Compile a filter; None for the empty one.

    Raises:
        InvalidInput: If it is no filter.
    """
    if not text:
        return None
    expression = parse(text)
    writer = _Writer()
    if _nesting(expression) > _MAX_NESTING or writer.has_empty_name(expression):
        native = "embedkit_holds(payload)"
    else:
        native = writer.written(expression)
    sql = _WHOLE.format(empty=int(holds(expression, None)), native=native)
    return Condition(sql, writer.parameters, expression, tuple(writer.leaves))


class _Writer:
    """Writes SQL and collects its parameters."""

    def __init__(self) -> None:
        self.parameters: dict[str, str | int | float] = {}
        self.leaves: list[Leaf] = []

    def has_empty_name(self, expression: Expression) -> bool:
        if isinstance(expression, Not):
            return self.has_empty_name(expression.operand)
        if isinstance(expression, All | AnyOf):
            return any(self.has_empty_name(part) for part in expression.parts)
        return "" in expression.key

    def written(self, expression: Expression) -> str:
        if isinstance(expression, Not):
            return f"NOT ({self.written(expression.operand)})"
        if isinstance(expression, All | AnyOf):
            word = " AND " if isinstance(expression, All) else " OR "
            return f"({word.join(self.written(part) for part in expression.parts)})"
        if any(_UNWRITTEN.search(name) for name in expression.key):
            return "0"  # such a key takes a backslash to write
        path = self._named(_path(expression.key))
        if isinstance(expression, Exists):
            return f"json_type(payload, {path}) IS NOT NULL"
        cases = " ".join(
            f"WHEN '{kind}' THEN {answer}"
            for kind, answer in self._answers(expression, path).items()
        )
        return f"CASE json_type(payload, {path}) {cases} ELSE 0 END"

    def _answers(self, leaf: Leaf, path: str) -> dict[str, str]:
        """What to compute for each type of value that can hold; all others do not."""
        value = f"json_extract(payload, {path})"
        if isinstance(leaf, Like):
            self.leaves.append(leaf)
            return {"text": f"embedkit_text({len(self.leaves) - 1}, {value})"}
        if isinstance(leaf, OneOf):
            return self._equal(leaf, path, value)
        if isinstance(leaf, Exists):
            raise AssertionError("existence has no value")
        operator, bound = (
            (leaf.operator, leaf.bound) if isinstance(leaf, Ordered) else ("!=", leaf.value)
        )
        if bound is None:
            return dict.fromkeys(
                ("true", "false", "integer", "real", "text", "array", "object"), "1"
            )
        if isinstance(bound, bool):
            return {"false" if bound else "true": "1"}
        if isinstance(bound, str):
            return {"text": f"{value} {operator} {self._named(bound)}"}
        return self._numbers(leaf, path, f"{value} {operator} ", [bound])

    def _equal(self, leaf: OneOf, path: str, value: str) -> dict[str, str]:
        answers = {}
        texts = [v for v in leaf.values if isinstance(v, str)]
        if texts:
            answers["text"] = f"{value} IN ({self._listed(texts)})"
        numbers = [
            v for v in leaf.values if isinstance(v, int | float) and not isinstance(v, bool)
        ]
        if numbers:
            answers |= self._numbers(leaf, path, f"{value} IN ", numbers)
        for constant, kind in ((True, "true"), (False, "false"), (None, "null")):
            if any(v is constant for v in leaf.values):
                answers[kind] = "1"
        return answers

    def _numbers(
        self, leaf: Leaf, path: str, beginning: str, numbers: list[int | float]
    ) -> dict[str, str]:
        asked = self._asked(leaf, path, numbers)
        if not all(_is_exact(number) for number in numbers):
            return {"integer": asked, "real": asked}
        native = f"{beginning}({self._listed(numbers)})"
        # An integer beyond 64 bits is extracted as a fraction.
        kind = f"typeof(json_extract(payload, {path}))"
        return {
            "integer": f"CASE {kind} WHEN 'integer' THEN {native} ELSE {asked} END",
            "real": asked,
        }

    def _asked(self, leaf: Leaf, path: str, numbers: list[int | float]) -> str:
        """Decides a comparison of numbers in Python where SQLite's rounding could matter."""
        self.leaves.append(leaf)
        call = f"embedkit_number({len(self.leaves) - 1}, payload -> {path})"
        try:
            low, high = float(min(numbers)), float(max(numbers))
        except OverflowError:
            return call
        below = self._named(low - abs(low) * _RELATIVE - _ABSOLUTE)
        above = self._named(high + abs(high) * _RELATIVE + _ABSOLUTE)
        less = isinstance(leaf, Unequal) or (isinstance(leaf, Ordered) and "<" in leaf.operator)
        more = isinstance(leaf, Unequal) or (isinstance(leaf, Ordered) and ">" in leaf.operator)
        value = f"json_extract(payload, {path})"
        return (
            f"CASE WHEN {value} < {below} THEN {int(less)} "
            f"WHEN {value} > {above} THEN {int(more)} ELSE {call} END"
        )

    def _listed(self, values: list[str] | list[int | float]) -> str:
        return ", ".join(self._named(value) for value in values)

    def _named(self, value: str | float) -> str:
        name = f"p{len(self.parameters)}"
        self.parameters[name] = value
        return f":{name}"


def _path(key: Key) -> str:
    return "$" + "".join(f'."{name}"' for name in key)


def _is_exact(number: float) -> bool:
    """Whether SQLite holds a number as it is."""
    return isinstance(number, float) or -(2**63) <= number < 2**63


def _nesting(expression: Expression) -> int:
    if isinstance(expression, Not):
        return 1 + _nesting(expression.operand)
    if isinstance(expression, All | AnyOf):
        return 1 + max(_nesting(part) for part in expression.parts)
    return 0
