from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pytest

from embedkit.errors import InvalidInput
from embedkit.registry import configure


@dataclass(frozen=True)
class Tea:
    """Something with an argument of each kind."""

    grams: float
    cups: int = 1
    leaf: Literal["green", "black"] = "black"
    water: tuple[float, float] = (80.0, 95.0)
    minutes: tuple[int, ...] | None = None
    milk: bool = False
    note: object = None
    sugar: Mapping[str, object] = field(default_factory=dict)
    lemon: str | tuple[Mapping[str, object], ...] = ""


def test_arguments_reach_the_dataclass_with_lists_as_tuples():
    made = configure(
        Tea,
        {"grams": 3, "water": [70, 80.5], "minutes": [1, 2, 3], "note": [[1], 2]},
        noun="tea",
    )
    assert made == Tea(3, water=(70, 80.5), minutes=(1, 2, 3), note=((1,), 2))


def test_functions_are_configured_too():
    def brew(*, minutes: int = 3) -> int:
        return minutes

    assert configure(brew, {"minutes": 5}, noun="brewing") == 5
    with pytest.raises(InvalidInput, match="expected minutes of brewing as int, got 'long'"):
        configure(brew, {"minutes": "long"}, noun="brewing")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "expected tea with the argument 'grams', got none"),
        (
            {"grams": 1, "cup": 2},
            r"unknown argument of tea 'cup'; did you mean 'cups'\? \(known: ",
        ),
        ({"grams": 1, "xyz": 2}, r"unknown argument of tea 'xyz' \(known: cups, grams"),
        ({"grams": "3"}, "expected grams of tea as float, got '3'"),
        ({"grams": True}, "expected grams of tea as float, got True"),
        ({"grams": 1, "cups": 1.5}, "expected cups of tea as int, got 1.5"),
        ({"grams": 1, "cups": False}, "expected cups of tea as int, got False"),
        ({"grams": 1, "leaf": "red"}, "expected leaf of tea as one of green, black, got 'red'"),
        (
            {"grams": 1, "water": [1.0]},
            r"expected water of tea as a list \[float, float\], got",
        ),
        ({"grams": 1, "water": 1.0}, "expected water of tea"),
        ({"grams": 1, "minutes": [1, "2"]}, "expected minutes of tea as a list of int, got"),
        ({"grams": 1, "sugar": 2}, "expected sugar of tea as a table, got 2"),
        ({"grams": 1, "lemon": 2}, "expected lemon of tea as str or a list of a table, got 2"),
        ({"grams": 1, "milk": 1}, "expected milk of tea as bool, got 1"),
    ],
)
def test_wrong_arguments_say_what_was_expected(arguments, message):
    with pytest.raises(InvalidInput, match=message):
        configure(Tea, arguments, noun="tea")
