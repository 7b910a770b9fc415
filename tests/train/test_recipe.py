"""Recipes: read, overridden, refused with the way out, and written again."""

import hashlib
from pathlib import Path

import pytest

from embedkit.errors import InvalidInput, NotFound
from embedkit.perturb.augmentation import build_augmentation
from embedkit.train.objective import build_objective
from embedkit.train.recipe import Recipe

SMALL = """
seed = 3
[data]
source = "digits"
[encoder]
name = "resnet"
preset = "tiny"
blocks = [1, 1]
[objective]
name = "simclr"
temperature = 0.5
[[augmentation]]
name = "geometric"
area = [0.5, 1.0]
[[augmentation]]
name = "erase"
[schedule]
epochs = 4
[expected]
"knn.top1" = 0.9
command = "embedkit train \\"x\\" \\u007f"
"""


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "small.toml"
    file.write_text(SMALL)
    return file


def test_values_and_defaults(path):
    recipe = Recipe.load(path)
    assert recipe.seed == 3
    assert recipe.encoder.name == "resnet"
    assert recipe.encoder.arguments == {"preset": "tiny", "blocks": [1, 1]}
    assert recipe.objective.arguments == {"temperature": 0.5}
    assert recipe.augmentation == (
        {"name": "geometric", "area": [0.5, 1.0]},
        {"name": "erase"},
    )
    assert recipe.schedule.epochs == 4
    assert recipe.optimiser.name == "adamw"


def test_what_is_written_reads_as_the_same_recipe(path, tmp_path):
    recipe = Recipe.load(path)
    copy = tmp_path / "copy.toml"
    copy.write_text(recipe.to_toml())
    assert Recipe.load(copy) == recipe
    assert Recipe.load(copy).to_toml() == recipe.to_toml()


@pytest.mark.parametrize("augmentation", ["none", "simclr", []])
def test_every_form_of_augmentation_survives_writing(path, tmp_path, augmentation):
    table = Recipe.load(path).to_dict() | {"augmentation": augmentation}
    recipe = Recipe.from_dict(table)
    copy = tmp_path / "copy.toml"
    copy.write_text(recipe.to_toml())
    assert Recipe.load(copy) == recipe


def test_digest_is_that_of_the_written_text(path):
    recipe = Recipe.load(path)
    text = hashlib.sha256(recipe.to_toml().encode()).hexdigest()
    assert recipe.digest == f"sha256:{text}"
    assert Recipe.load(path, ["seed=4"]).digest != recipe.digest


def test_overrides_replace_values(path):
    overrides = [
        "data.source=/some/folder",
        "schedule.epochs=9",
        "augmentation.1.p=0.25",
        "optimiser.betas=[0.8, 0.9]",
        "run.precision=bf16",
        "input.height=32",
    ]
    recipe = Recipe.load(path, overrides)
    assert recipe.data.source == "/some/folder"
    assert recipe.schedule.epochs == 9
    assert recipe.augmentation[1] == {"name": "erase", "p": 0.25}
    assert recipe.optimiser.betas == (0.8, 0.9)
    assert recipe.run.precision == "bf16"
    assert recipe.input == {"height": 32}


def test_a_recipe_in_another_encoding_is_refused(tmp_path):
    path = tmp_path / "latin.toml"
    path.write_bytes("# Größe\nseed = 1\n".encode("latin-1"))
    with pytest.raises(InvalidInput, match=r"expected UTF-8 text in .*latin\.toml"):
        Recipe.load(path)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("schedule.epoch=3", r"\[schedule\].*'epoch'; did you mean 'epochs'"),
        ("shedule.epochs=3", "'shedule'; did you mean 'schedule'"),
        ("schedule.epochs=many", "epochs of .* as int, got 'many'"),
        ("schedule.epochs=0", "schedule.epochs to be at least 1, got 0"),
        ("schedule.batch_size=1", "batch_size to be at least 2"),
        ("schedule.final_lr=2", "final_lr in"),
        ("schedule.warmup_epochs=inf", "warmup_epochs to be finite and at least 0, got inf"),
        ("run.precision=fp8", "precision of .* as one of fp32, bf16, auto, got 'fp8'"),
        ("run.ema=1.0", "run.ema in"),
        ("optimiser.lr=0", "lr to be above 0"),
        ("optimiser.lr=1e300", r"lr to be above 0 and at most 1e30, got 1e\+300"),
        ("optimiser.lr=inf", "lr to be above 0 and at most 1e30, got inf"),
        ("optimiser.weight_decay=1e300", "weight_decay in"),
        ("optimiser.trust=nan", "trust in"),
        (
            "optimiser.name=adam",
            r"name of \[optimiser\] as one of adamw, sgd, lars, got 'adam'",
        ),
        ("optimiser.betas=[0.9]", "betas"),
        ("projection.dim=0", "projection layers, hidden and dim"),
        ("data.limit=-1", "data.limit"),
        ("seed=-1", "seed to be at least 0"),
        ("seed=true", "seed of a recipe as int"),
        ("input=3", "input of a recipe as a table, got 3"),
        ("augmentation=[1]", "preset's name or"),
        ("encoder.name=3", r"\[encoder\] to have a name"),
        ("schedule=3", r"\[schedule\] to be a table"),
        ("epochs", "key=value such as seed=1"),
        ("=3", "key=value such as seed=1"),
        ("seed.x=3", "to lead to a table"),
        ("seed.x.y=3", "through tables"),
        ("augmentation.7.p=1", "through tables"),
        ("augmentation.7=1", "to lead to a table"),
        ("augmentation.²=1", "to lead to a table"),
        ("augmentation.².p=1", "through tables"),
    ],
)
def test_wrong_settings_say_what_was_expected(path, override, message):
    with pytest.raises(InvalidInput, match=message):
        Recipe.load(path, [override])


def test_missing_sections_are_named(tmp_path):
    file = tmp_path / "bare.toml"
    file.write_text('[data]\nsource = "digits"\n')
    with pytest.raises(InvalidInput, match="'encoder'"):
        Recipe.load(file)


def test_broken_toml_names_file_and_line(tmp_path):
    file = tmp_path / "broken.toml"
    file.write_text("seed = \n")
    with pytest.raises(InvalidInput, match=r"broken\.toml.*line 1"):
        Recipe.load(file)


def test_missing_file():
    with pytest.raises(NotFound, match="no_such"):
        Recipe.load(Path("no_such.toml"))


def test_every_committed_recipe_reads_and_names_what_exists(repository):
    recipes = {file.stem: Recipe.load(file) for file in (repository / "recipes").glob("*.toml")}
    assert {"digits", "fashion"} <= recipes.keys()
    for recipe in recipes.values():
        assert build_objective(recipe.objective.name, recipe.objective.arguments)
        if not isinstance(recipe.augmentation, str):
            assert build_augmentation(recipe.augmentation)


@pytest.mark.parametrize("name", ["digits"])
def test_recipes_on_known_data_state_what_they_reach(repository, name):
    recipe = Recipe.load(repository / "recipes" / f"{name}.toml")
    assert "knn.top1" in recipe.expected


def test_a_setting_added_later_leaves_older_recipes_their_text(path):
    recipe = Recipe.load(path)
    assert "accumulate" not in recipe.to_toml()
    other = Recipe.load(path, ["schedule.accumulate=2"])
    assert "accumulate = 2" in other.to_toml()
    assert other.digest != recipe.digest
    assert Recipe.from_dict(other.to_dict()) == other
