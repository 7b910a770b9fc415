"""Every objective has its recipes, and they are what the leaderboard runs."""

from dataclasses import replace

import pytest

from embedkit.train.objective import build_objective, objectives
from embedkit.train.recipe import Recipe
from tools.board.entries import entries, find
from tools.board.published import cifar10_recipe
from tools.board.recipe_files import FOLDERS, recipe_texts

MAKE = "run: python -m tools.make_recipes"


def test_every_objective_has_its_recipes(repository):
    for folder in FOLDERS:
        found = {path.stem for path in (repository / "recipes" / folder).glob("*.toml")}
        assert found == set(objectives.names()), MAKE


@pytest.mark.parametrize("name", objectives.names())
def test_recipes_are_those_of_the_table(repository, name):
    wanted = {"fashion_mnist": find(name).recipe(), "cifar10": cifar10_recipe(find(name))}
    for folder, recipe in wanted.items():
        file = Recipe.load(repository / "recipes" / folder / f"{name}.toml")
        assert replace(file, expected={}) == recipe, MAKE
        assert file.objective.name == name
        build_objective(name, file.objective.arguments)


def test_conditions_are_equal_but_for_what_is_declared():
    common = find("simclr").recipe()
    for entry in entries():
        if entry.kind == "nothing":
            continue
        recipe = entry.recipe()
        for section in ("data", "schedule", "optimiser", "augmentation", "run"):
            same = getattr(recipe, section) == getattr(common, section)
            assert same or section in entry.changes, (entry.name, section)
        assert recipe.encoder == common.encoder or "encoder" in entry.changes
        # Whatever differs is explained in the table.
        assert bool(entry.note) >= bool(set(entry.changes) - {"objective"}), entry.name


def test_expectations_are_intervals_around_their_value(repository):
    for path in (repository / "recipes" / "fashion_mnist").glob("*.toml"):
        expected = Recipe.load(path).expected
        for metric in ("knn.top1", "linear.top1"):
            if metric in expected:
                ends = expected[f"{metric}.interval"]
                assert 0 < ends[0] < expected[metric] < ends[1] < 1


def test_what_was_not_run_expects_nothing(repository):
    for path in (repository / "recipes" / "cifar10").glob("*.toml"):
        assert not Recipe.load(path).expected
        assert "Not run by this project yet" in path.read_text(encoding="utf-8")


def test_texts_are_deterministic():
    assert recipe_texts() == recipe_texts()
