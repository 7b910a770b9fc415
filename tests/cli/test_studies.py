"""``embedkit eval backdoor`` and ``membership``: from a recipe to a report, with training."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from embedkit.cli.eval import command
from embedkit.cli.eval.training import Trainer
from embedkit.data.source import load_dataset
from embedkit.errors import InvalidInput
from embedkit.evaluate.html.words import ABOUT, term_of
from embedkit.train.recipe import Recipe

RECIPE = """
seed = 0
augmentation = "none"
[data]
source = "digits"
[encoder]
name = "resnet"
blocks = [1]
width = 8
[objective]
name = "simclr"
[projection]
hidden = 16
dim = 16
[schedule]
epochs = 1
batch_size = 64
warmup_epochs = 0
"""


@pytest.fixture
def study(tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE)

    def study(name, *arguments):
        words = [name, str(tmp_path / "recipe.toml"), "--out", str(tmp_path / name), *arguments]
        return CliRunner().invoke(command, words), tmp_path / name

    return study


def arrays(path):
    """Every array of an archive, which is closed again."""
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def checked(report):
    """The one result of a report, after everything that reports promise."""
    from importlib.resources import files

    schema = json.loads(files("embedkit.evaluate").joinpath("report.schema.json").read_text())
    Draft202012Validator(schema).validate(report)
    (result,) = report["results"]
    assert result["task"] in ABOUT
    assert [name for name in result["metrics"] if not term_of(name)] == []
    return result


@pytest.mark.slow
def test_backdoor_trains_twice_and_goes_on_where_it_was(study):
    arguments = ("--test", "digits:test", "--limit", "200", "--share", "0.05", "--target", "3")
    done, out = study("backdoor", *arguments)
    assert done.exit_code == 0, done.output
    report = json.loads((out / "report.json").read_text())
    result = checked(report)
    assert result["cost"]["poisoned_images"] == 10
    assert set(report["run"]["options"]["models"]) == {"clean", "poisoned"}
    assert report["model"]["digest"] == report["run"]["options"]["models"]["poisoned"]
    assert set(result["baselines"]) == {"clean_model"}
    clean, poisoned = (
        arrays(out / name / "train.npz")["x_train"] for name in ("clean", "poisoned")
    )
    assert (clean != poisoned).any(axis=(1, 2)).reshape(200, -1).any(axis=1).sum() == 10
    weights = (out / "clean" / "run" / "encoder.safetensors").stat().st_mtime_ns
    again, _ = study("backdoor", *arguments)
    assert again.exit_code == 0, again.output
    assert (out / "clean" / "run" / "encoder.safetensors").stat().st_mtime_ns == weights
    assert checked(json.loads((out / "report.json").read_text())) == result


@pytest.mark.slow
def test_membership_trains_each_model_on_its_half(study):
    done, out = study("membership", "--limit", "200", "--canaries", "100", "--views", "2")
    assert done.exit_code == 0, done.output
    result = checked(json.loads((out / "report.json").read_text()))
    assert result["metrics"]["similarity.auroc"]["n"] == 100
    items = arrays(out / "items" / "membership.npz")
    assert items["members"].sum(axis=1).tolist() == [50] * 4
    assert [len(arrays(out / f"model{m}" / "train.npz")["x_train"]) for m in range(4)] == [
        150
    ] * 4


@pytest.fixture
def trainer(tmp_path):
    """Trains in steps, not in epochs: a model takes a second."""
    (tmp_path / "recipe.toml").write_text(RECIPE)
    recipe = Recipe.load(tmp_path / "recipe.toml", ["schedule.max_steps=1"])
    return Trainer(recipe, tmp_path / "study", "cpu")


def test_a_model_of_other_images_is_not_measured_as_one_of_these(trainer):
    digits = load_dataset("digits")
    first, second = digits.subset(np.arange(64)), digits.subset(np.arange(64, 128))
    with trainer(first, "model0") as served:
        digest = served.digest
    with trainer(first, "model0") as served:
        assert served.digest == digest
    with (
        pytest.raises(InvalidInput, match=r"data that the run was started.*another --out"),
        trainer(second, "model0"),
    ):
        pass
    # Even where the run is gone and only its bundle is left.
    shutil.rmtree(trainer.out / "model0" / "run")
    with (
        pytest.raises(InvalidInput, match=r"a model of the images of this.*another --out"),
        trainer(second, "model0"),
    ):
        pass


def test_a_class_that_is_not_there_is_refused_before_any_training(study):
    done, out = study("backdoor", "--test", "digits:test", "--target", "eleven")
    assert isinstance(done.exception, InvalidInput)
    assert "got 'eleven'" in str(done.exception)
    assert not out.exists()


@pytest.mark.parametrize("name", ["backdoor", "membership"])
def test_a_wrong_objective_is_refused_before_any_data_is_read(study, name):
    extra = ("--test", "nowhere") if name == "backdoor" else ()
    wrong = ("--set", "data.source=nowhere", "--set", "objective.temperature=-1")
    done, out = study(name, *extra, *wrong)
    assert isinstance(done.exception, InvalidInput)
    assert "expected a temperature above 0" in str(done.exception)
    assert not out.exists()


@pytest.mark.slow
def test_an_objective_with_labels_gets_them(study, tmp_path):
    before, after = RECIPE.replace("simclr", "cross_entropy").split("[projection]")
    (tmp_path / "recipe.toml").write_text(before + after[after.index("[schedule]") :])
    done, out = study("membership", "--limit", "90", "--canaries", "40", "--views", "2")
    assert done.exit_code == 0, done.output
    checked(json.loads((out / "report.json").read_text()))
    assert set(arrays(out / "model0" / "train.npz")["y_train"]) == set(range(10))
