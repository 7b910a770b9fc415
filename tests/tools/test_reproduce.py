"""A recipe's claim is compared with what a server gives."""

import pytest

from embedkit.errors import InvalidInput
from embedkit.evaluate.statistics import Metric
from embedkit.train.recipe import Recipe
from tools.reproduce import Claim, claims, main

RECIPE = """
[data]
source = "digits"
limit = 200
[encoder]
name = "resnet"
blocks = [1, 1]
width = 4
[objective]
name = "simclr"
[projection]
hidden = 16
dim = 8
[schedule]
epochs = 1
batch_size = 100
[expected]
"knn.top1" = 0.5
"knn.top1.interval" = {interval}
minutes = 1
"""


def test_claims_are_metrics_and_their_intervals():
    found = claims(
        {"knn.top1": 0.8, "knn.top1.interval": [0.7, 0.9], "linear.top1": 0.9, "mb": 1}
    )
    assert found == [Claim("knn.top1", 0.8, (0.7, 0.9)), Claim("linear.top1", 0.9)]


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"knn.top1": 0.5, "knn.top1.interval": [0.4]}, r"expected \[low, high\].*got \[0.4\]"),
        ({"knn.top1": 0.5, "knn.top1.interval": [0.6, 0.4]}, r"got \[0.6, 0.4\]"),
        ({"knn.top1": 0.5, "knn.top1.interval": ["0.4", 0.6]}, r"expected \[low, high\]"),
        ({"knn.top1": 0.5, "knn.top1.interval": 0.4}, "got 0.4"),
        ({"knn.top1": 0.5, "knn.top1.intervall": [0.4, 0.6]}, "called <metric>.interval"),
        ({"knn.top1": 0.5, "knn.topp1.interval": [0.4, 0.6]}, "expected knn.topp1 beside"),
        ({"knn.top1": "0.5"}, "expected a number as knn.top1"),
        ({"knn.top1": True}, "expected a number as knn.top1"),
        ({"knn": {"top1": 0.5}}, "got a table knn"),
    ],
)
def test_a_claim_that_cannot_be_read_is_refused(expected, message):
    with pytest.raises(InvalidInput, match=message):
        claims(expected)


def test_the_claims_of_our_own_recipes_are_read(repository):
    for path in (repository / "recipes").rglob("*.toml"):
        stated = Recipe.load(path).expected
        assert len(claims(stated)) == sum("top1" in name for name in stated) - sum(
            name.endswith(".interval") for name in stated
        )


@pytest.mark.parametrize(
    ("claim", "value", "agrees"),
    [
        (Claim("knn.top1", 0.8, (0.7, 0.9)), 0.71, True),
        (Claim("knn.top1", 0.8, (0.7, 0.9)), 0.69, False),
        # Without an interval, that of the metric decides.
        (Claim("knn.top1", 0.8), 0.81, True),
        (Claim("knn.top1", 0.8), 0.83, False),
    ],
)
def test_a_claim_agrees_within_its_interval(claim, value, agrees):
    metric = Metric(value, (value - 0.02, value + 0.02), 100)
    assert claim.agrees(metric) is agrees
    assert ("DIFFERS" in claim.verdict(metric)) is not agrees


def test_a_recipe_is_trained_served_and_compared(tmp_path, capsys):
    path = tmp_path / "small.toml"
    arguments = [str(path), "--out", str(tmp_path / "out"), "--device", "cpu"]
    path.write_text(RECIPE.format(interval="[0.0, 1.0]"))
    assert main(arguments) == 0
    assert "knn.top1: 0." in capsys.readouterr().out
    # Nothing reaches more than 1.
    path.write_text(RECIPE.format(interval="[1.01, 1.02]"))
    assert main([*arguments[:2], str(tmp_path / "again"), "--device", "cpu"]) == 1
    assert "DIFFERS" in capsys.readouterr().out


def test_a_recipe_without_claims_has_nothing_to_compare(tmp_path, capsys):
    path = tmp_path / "bare.toml"
    path.write_text(RECIPE.partition("[expected]")[0])
    assert main([str(path)]) == 2
    assert "states no score" in capsys.readouterr().err
