"""What a filter's text means, and that anything else is refused with its place."""

import random

import pytest

from embedkit.errors import InvalidInput
from embedkit.retrieve.filter.expression import (
    All,
    AnyOf,
    Exists,
    Like,
    Not,
    OneOf,
    Ordered,
    Unequal,
)
from embedkit.retrieve.filter.grammar import parse

A, B, C = (OneOf((name,), (1,)) for name in "abc")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = 1", A),
        ("a=1", A),
        ("\n a\t=\r\n1 ", A),
        ("a != 'x'", Unequal(("a",), "x")),
        ("a < -2.5e-3", Ordered(("a",), "<", -0.0025)),
        ("a<=1", Ordered(("a",), "<=", 1)),
        ("a > 'x'", Ordered(("a",), ">", "x")),
        ("a>=1", Ordered(("a",), ">=", 1)),
        ("a = 9007199254740993", OneOf(("a",), (9007199254740993,))),
        (
            "a = 123456789012345678901234567890",
            OneOf(("a",), (123456789012345678901234567890,)),
        ),
        ("a in (1, 'x', null, TRUE,false)", OneOf(("a",), (1, "x", None, True, False))),
        ("a like 'x%_'", Like(("a",), "x%_")),
        ("exists a.b.c", Exists(("a", "b", "c"))),
        ('"odd key"."and"."a""b"."" = 1', OneOf(("odd key", "and", 'a"b', ""), (1,))),
        ("größe-2 = 'it''s'", OneOf(("größe-2",), ("it's",))),
        ("a = ''", OneOf(("a",), ("",))),
        ("a = 1 or b = 1 and c = 1", AnyOf((A, All((B, C))))),
        ("(a = 1 or b = 1) and c = 1", All((AnyOf((A, B)), C))),
        ("not a = 1 and b = 1", All((Not(A), B))),
        ("NOT (a = 1 AND b = 1)", Not(All((A, B)))),
        ("not not ((a = 1))", Not(Not(A))),
    ],
)
def test_what_a_filter_says(text: str, expected: object) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a key at position 1 of the filter, got the end"),
        ("a == 1", "position 3 of the filter, got '=='; did you mean '='"),
        ("a <> 1", "did you mean '!='"),
        ("a => 1", "did you mean '>='"),
        ("a = 1 && b = 1", "'and', 'or' or the end at position 7.*did you mean 'and'"),
        ("a = 1 || b = 1", "did you mean 'or'"),
        ("a lke 'x'", "did you mean 'like'"),
        ("a is null", "did you mean '='"),
        ("a not in (1)", r"write not \(key in"),
        ("a = b", "a value: .*position 5.*did you mean 'b'"),
        ('a = "it\'s"', "did you mean 'it''s'"),
        ("'x' = a", "a key at position 1.*on the left"),
        ("and = 1", 'write "and"'),
        ("a.1 = 1", 'position 3.*write "1"'),
        ("a. = 1", "a key at position 4"),
        ("a = 'x", "a closing ' at position 5"),
        ("a = 'x''", "a closing ' at position 5"),
        ('"a = 1', 'a closing " at position 1'),
        ("a < true", "a number or 'text' after < at position 5.*use = or !="),
        ("a >= null", "after >= at position 6"),
        ("a like 3", "a 'text' with % and _ after like at position 8"),
        ("a in 1", r"'\(' at position 6"),
        ("a in ()", "a value.*position 7"),
        ("a in (1,)", "a value.*position 9"),
        ("(a = 1", r"'\)' at position 7 of the filter, got the end"),
        ("a = 1)", "or the end at position 6"),
        ("a = 1 b = 1", "'and', 'or' or the end at position 7"),
        ("a", "one of = != .* at position 2 of the filter, got the end"),
        ("a = 1e999", "float64"),
        ("a = " + "9" * 5000, "float64"),
        ("a = #", "position 5 of the filter, got '#'"),
        ("a = 1; DROP TABLE items", "got ';'"),
        ("a = '\ud800'", "UTF-8"),
        ("a = '" + "x" * 20_000 + "'", "at most 16384 bytes, got 20006"),
        ("(" * 65 + "a = 1" + ")" * 65, "64 levels"),
        ("not " * 64 + "a = 1", "64 levels"),
        ("a in (" + ",".join("1" * 1001) + ")", "1000 values"),
        (" or ".join(["a = 1"] * 501), "500 comparisons"),
        ("a like '" + "_" * 257 + "'", "256 characters"),
    ],
)
def test_what_is_no_filter_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        parse(text)
    assert len(str(caught.value)) < 300


def test_the_largest_filters_are_read() -> None:
    assert parse("(" * 63 + "a = 1" + ")" * 63) == A
    assert parse("a in (" + ",".join("1" * 1000) + ")") == OneOf(("a",), (1,) * 1000)
    assert parse(" or ".join(["a = 1"] * 500)) == AnyOf((A,) * 500)
    assert isinstance(parse("a = '" + "x" * 16_378 + "'"), OneOf)


def test_ten_thousand_random_texts_are_read_or_refused() -> None:
    rng = random.Random(0)
    words = [
        *("a", "b.c", '"odd key"', "and", "or", "not", "(", ")", "=", "!=", "<", "in", "like"),
        *("exists", "'text'", "''", "-1", "2.5", "true", "null", ",", ".", '"', "'", "\\", "%"),
        *("\0", "\ud800", "☃", "--", ";", "$", "?", ":p0", "1e400", " ", "\n", "{", "{}"),
    ]
    read = 0
    for number in range(10_000):
        if number % 2:
            text = " ".join(rng.choices(words, k=rng.randint(1, 12)))
        else:
            text = "".join(chr(rng.randint(0, 300)) for _ in range(rng.randint(1, 30)))
        try:
            parse(text)
            read += 1
        except InvalidInput:
            pass
    assert 0 < read < 5_000
