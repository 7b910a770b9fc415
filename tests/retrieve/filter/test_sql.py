"""Filters run by SQLite, against an evaluator written from the language's description."""

import json
import sqlite3
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from math import inf, isfinite, nextafter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.errors import InvalidInput
from embedkit.retrieve.filter.expression import holds
from embedkit.retrieve.filter.grammar import parse
from embedkit.retrieve.filter.sql import condition
from embedkit.retrieve.patience import FOREVER
from embedkit.retrieve.truth.view import matching_slots

# A test's filter: ("or", x, y), ("and", x, y), ("not", x), ("exists", key),
# ("in", key, values), ("like", key, pattern) or (operator, key, value).
NAMES = [
    "a",
    "b",
    "odd key",
    "and",
    "a.b",
    'q"',
    "back\\slash",
    "ä☃",
    "\0",
    "",
    "$",
    "0",
    "p0",
    "'",
]
ABSENT = object()


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(value: object) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return json.dumps(value)


def rendered(tree: tuple) -> str:
    word, *rest = tree
    if word in ("or", "and"):
        return f"({rendered(rest[0])}) {word} ({rendered(rest[1])})"
    if word == "not":
        return f"not ({rendered(rest[0])})"
    key = ".".join(map(quoted, rest[0]))
    if word == "exists":
        return f"exists {key}"
    if word == "in":
        return f"{key} in ({', '.join(map(literal, rest[1]))})"
    return f"{key} {word} {literal(rest[1])}"


def reference(tree: tuple, payload: object) -> bool:
    word, *rest = tree
    if word in ("or", "and"):
        one, two = reference(rest[0], payload), reference(rest[1], payload)
        return (one or two) if word == "or" else (one and two)
    if word == "not":
        return not reference(rest[0], payload)
    found = payload
    for name in rest[0]:
        found = found[name] if type(found) is dict and name in found else ABSENT
    return found is not ABSENT and fulfilled(word, found, *rest[1:])


def fulfilled(word: str, found: object, *operand: object) -> bool:
    """A comparison with a value that is there."""
    if word == "exists":
        return True
    if word == "in":
        return any(compared(found, "=", value) for value in operand[0])  # type: ignore[attr-defined]
    if word == "like":
        return isinstance(found, str) and fits(str(operand[0]), found)
    return compared(found, word, operand[0])


def compared(found: object, word: str, value: object) -> bool:
    if value is None:
        return (found is None) == (word == "=")
    one, two = comparable(found), comparable(value)
    if one is None or two is None or one[0] != two[0]:
        return False
    order = (one[1] > two[1]) - (one[1] < two[1])
    return {
        "=": order == 0,
        "!=": order != 0,
        "<": order < 0,
        "<=": order <= 0,
        ">": order > 0,
        ">=": order >= 0,
    }[word]


def comparable(value: object) -> tuple | None:
    """A tag for the type, and something whose order is exact."""
    if type(value) is bool:
        return "boolean", value
    if type(value) in (int, float):
        return "number", Fraction(value)  # type: ignore[arg-type]
    return ("text", [ord(c) for c in value]) if type(value) is str else None


def fits(pattern: str, text: str) -> bool:
    @lru_cache(None)
    def from_here(p: int, t: int) -> bool:
        if p == len(pattern):
            return t == len(text)
        if pattern[p] == "%":
            return from_here(p + 1, t) or (t < len(text) and from_here(p, t + 1))
        width, wanted = 1, pattern[p]
        if wanted == "\\" and p + 1 < len(pattern):
            width, wanted = 2, pattern[p + 1]
        is_any = width == 1 and wanted == "_"
        return t < len(text) and (is_any or text[t] == wanted) and from_here(p + width, t + 1)

    return from_here(0, 0)


keys = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(tuple)
letters = st.text(st.sampled_from("aAbB%_\\'\"ä☃\0\n😀"), max_size=5)
integers = st.one_of(
    st.integers(-2, 3),
    st.integers(-(2**70), 2**70),
    st.sampled_from([s * 2**p + d for p in (53, 63, 64) for d in (-1, 0, 1) for s in (-1, 1)]),
)
floats = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 1.0, 0.1, 2.0**53, 2.0**63, 5e-324, 0.1 + 0.2]),
)
scalars = st.one_of(letters, integers, floats, st.booleans(), st.none())
ordered = st.one_of(letters, integers, floats)
leaves = st.one_of(
    st.tuples(st.just("exists"), keys),
    st.tuples(st.sampled_from(["=", "!="]), keys, scalars),
    st.tuples(st.sampled_from(["<", "<=", ">", ">="]), keys, ordered),
    st.tuples(st.just("in"), keys, st.lists(scalars, min_size=1, max_size=5)),
    st.tuples(st.just("like"), keys, letters),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.tuples(st.just("not"), inner),
        st.tuples(st.sampled_from(["and", "or"]), inner, inner),
    ),
    max_leaves=8,
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)
    ),
    max_leaves=6,
)
payloads = st.none() | st.dictionaries(st.sampled_from(NAMES), values, max_size=5)


@pytest.fixture(scope="module")
def connection() -> Iterator[sqlite3.Connection]:
    made = sqlite3.connect(":memory:")
    made.execute("CREATE TABLE items (slot INTEGER PRIMARY KEY, payload TEXT)")
    yield made
    made.close()


def matching(connection: sqlite3.Connection, texts: list[str | None], text: str) -> list[int]:
    """Positions of the payloads that SQLite finds."""
    connection.execute("DELETE FROM items")
    connection.executemany("INSERT INTO items VALUES (?, ?)", enumerate(texts))
    compiled = condition(text)
    assert compiled is not None
    return matching_slots(connection, compiled, FOREVER).tolist()


@settings(max_examples=400, deadline=None)
@given(trees, st.lists(payloads, max_size=8), st.booleans())
def test_sqlite_agrees_with_the_description(
    connection: sqlite3.Connection, tree: tuple, rows: list[dict | None], ascii_only: bool
) -> None:
    texts = [None if r is None else json.dumps(r, ensure_ascii=ascii_only) for r in rows]
    expected = [n for n, row in enumerate(rows) if reference(tree, row)]
    assert matching(connection, texts, rendered(tree)) == expected


@settings(max_examples=300, deadline=None)
@given(leaves, st.lists(values, min_size=1, max_size=8))
def test_sqlite_agrees_where_the_key_is_there(
    connection: sqlite3.Connection, leaf: tuple, found: list
) -> None:
    rows = []
    for value in found:
        row = value
        for name in reversed(leaf[1]):
            row = {"z": 0, name: row}
        rows.append(row)
    texts = [json.dumps(row, ensure_ascii=False) for row in rows]
    expected = [n for n, row in enumerate(rows) if reference(leaf, row)]
    assert matching(connection, texts, rendered(leaf)) == expected


ROWS = [
    '{"v": 9007199254740993}',
    '{"v": 9007199254740992}',
    '{"v": 9007199254740992.0}',
    '{"v": 18446744073709551617}',
    '{"v": true}',
    '{"v": 1}',
    '{"v": "1"}',
    '{"v": null}',
    '{"v": ""}',
    '{"v": "Cat"}',
    '{"v": "cat"}',
    '{"v": {"v": "inner", "odd key": 2}}',
    '{"v": ["cat", 1]}',
    '{"V": 1, "\\u0076": "escaped"}',
    "{}",
    None,
    '{"v": 1e400}',
]
EVERY = set(range(len(ROWS)))
THERE = EVERY - {14, 15}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("v = 9007199254740993", {0}),
        ("v = 9007199254740992", {1, 2}),
        ("v > 9007199254740992", {0, 3, 16}),
        ("v = 18446744073709551617", {3}),
        ("v in (18446744073709551616, 18446744073709551617)", {3}),
        ("v = 1", {5}),
        ("v = 1.0", {5}),
        ("v = true", {4}),
        ("v != true", set()),
        ("v != false", {4}),
        ("v = '1'", {6}),
        ("v = null", {7}),
        ("v != null", THERE - {7}),
        ("exists v", THERE),
        ("not exists v", {14, 15}),
        ("not v = 1", EVERY - {5}),
        ("v != 1", {0, 1, 2, 3, 16}),
        ("v = 'cat'", {10}),
        ("v like 'c%'", {10}),
        ("v like '%'", {6, 8, 9, 10, 13}),
        ("v like '_at'", {9, 10}),
        ("v < 'a'", {6, 8, 9}),
        ("v in ('cat', 1, null, true)", {4, 5, 7, 10}),
        ("v.v = 'inner'", {11}),
        ('v."odd key" = 2', {11}),
        ('exists v."0"', set()),
        ("V = 1", {13}),
        ("v = 'escaped'", {13}),
    ],
)
def test_the_traps(connection: sqlite3.Connection, text: str, expected: set[int]) -> None:
    assert set(matching(connection, ROWS, text)) == expected


def test_the_deepest_and_the_widest_run(connection: sqlite3.Connection) -> None:
    """At each depth, on both sides of what SQLite's own parser can hold."""
    parsed = [None if row is None else json.loads(row) for row in ROWS]
    for depth in range(1, 26):
        text = "v = 1"
        for level in range(depth):
            word = "or v = null and" if level % 2 else "and exists v and"
            text = f"not (v = 'x' {word} ({text}))" if level % 3 else f"v = 1 or ({text})"
        expected = [n for n, row in enumerate(parsed) if holds(parse(text), row)]
        assert matching(connection, ROWS, text) == expected, depth
    wide = " or ".join(["v in (1, 'x', 0.5)"] * 500)
    assert matching(connection, ROWS, wide) == [5]
    assert matching(connection, ROWS, f"v in ({','.join(map(str, range(1000)))})") == [5]


def test_what_the_user_writes_never_becomes_sql() -> None:
    for text in ("a = 'x; DROP TABLE items'", '"a\') OR 1=1 --" = 1', 'exists "\'"."x y"'):
        compiled = condition(text)
        assert compiled is not None
        for written in ("DROP", "1=1", "x y"):
            assert written not in compiled.sql


def test_patterns_end_soon(connection: sqlite3.Connection) -> None:
    """A pattern for which backtracking would take longer than the universe is old."""
    text = json.dumps({"v": "a" * 60_000})
    assert matching(connection, [text], "v like '" + "%a" * 127 + "b'") == []
    assert matching(connection, [text], "v like '" + "%a_" * 85 + "'") == [0]


def test_the_empty_filter_is_none() -> None:
    assert condition("") is None
    with pytest.raises(InvalidInput):
        condition(" ")


@pytest.mark.parametrize(
    "bound", [0.1, -1e300, 5e-324, 2.0**63, 1 / 3, 1.7976931348623157e308, 0.0]
)
def test_numbers_next_to_the_bound_are_told_apart(
    connection: sqlite3.Connection, bound: float
) -> None:
    """From the neighbouring float64 to well beyond what SQLite is trusted with."""
    near = [bound, nextafter(bound, -inf), nextafter(bound, inf)]
    far = [bound * (1 + s * 10.0**-p) for p in (6, 8, 9, 10, 12) for s in (-1, 1)]
    found = [float(v) for v in [*near, *far, -bound, 2 * bound, 1.0, -1e308] if isfinite(v)]
    texts = [json.dumps({"v": value}) for value in found]
    for word in ("=", "!=", "<", "<=", ">", ">="):
        expected = [n for n, value in enumerate(found) if compared(value, word, bound)]
        assert matching(connection, texts, f"v {word} {bound!r}") == expected, word
