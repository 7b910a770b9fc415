"""TOML that is written reads back as what it was."""

import tomllib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedkit.errors import InvalidInput
from embedkit.train.recipe_text import apply_override, dump_toml, parse_toml

plain = st.one_of(
    st.booleans(),
    st.integers(-(2**62), 2**62),
    st.floats(allow_nan=False),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs"])),
)
inline = st.one_of(plain, st.lists(plain, max_size=3), st.lists(st.lists(plain, max_size=2)))
keys = st.text(min_size=1, max_size=8, alphabet="abc_-. \"'é")
table = st.dictionaries(keys, inline, max_size=4)
document = st.dictionaries(
    keys,
    st.one_of(inline, table, st.lists(table, min_size=1, max_size=3)),
    max_size=5,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(document)
def test_round_trip(values):
    assert tomllib.loads(dump_toml(values)) == values


def test_values_that_toml_lacks_are_refused():
    with pytest.raises(InvalidInput, match="TOML can hold, got None"):
        dump_toml({"a": None})


def test_parse_names_the_source():
    with pytest.raises(InvalidInput, match="in here"):
        parse_toml("a = [", "here")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=1", 1),
        ("a=1e-3", 1e-3),
        ("a=true", True),
        ("a=[1, 2]", [1, 2]),
        ('a="x=y"', "x=y"),
        ("a=x=y", "x=y"),
        ("a=../some folder", "../some folder"),
        ("a=", ""),
    ],
)
def test_override_values(text, value):
    values: dict[str, object] = {}
    apply_override(values, text)
    assert values == {"a": value}


def test_override_makes_the_tables_it_needs():
    values: dict[str, object] = {"b": [1, {"c": 2}]}
    apply_override(values, "x.y.z=1")
    apply_override(values, "b.1.c=3")
    apply_override(values, "b.0=5")
    assert values == {"b": [5, {"c": 3}], "x": {"y": {"z": 1}}}
