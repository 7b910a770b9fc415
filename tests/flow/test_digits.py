"""The main job whole: the committed recipe, trained, exported, served and measured.

And the committed bundle beside it: it must be what the recipe gives.
"""

import json
import math
import subprocess
import sys

import numpy as np
import pytest

import embedkit
from embedkit.bundle import Bundle
from embedkit.data.source import load_dataset
from embedkit.evaluate.context import Context, Options
from embedkit.evaluate.run import evaluate
from embedkit.serve.server import running_server
from embedkit.train.recipe import Recipe

# Training takes a minute of one core, and the first test waits for it.
pytestmark = pytest.mark.timeout(900)

SUITE = ("classify", "knn", "linear", "ood")
LIMIT_BYTES = 1_500_000


@pytest.fixture(scope="module")
def committed(repository):
    return Bundle(repository / "models" / "digits" / "1")


@pytest.fixture(scope="module")
def retrained(repository, tmp_path_factory):
    """A bundle made now, by the command line, from the committed recipe."""
    folder = tmp_path_factory.mktemp("digits")
    run(repository, "train", "recipes/digits.toml", "--out", str(folder / "run"))
    fitted = ("--head", "digits", "--detector", "knn", "--detector-data", "digits")
    target = ("--name", "digits", "--models", str(folder / "models"))
    run(repository, "export", str(folder / "run"), *target, *fitted)
    return Bundle(folder / "models" / "digits" / "1")


def run(folder, *arguments):
    command = [sys.executable, "-m", "embedkit", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def reports(committed, retrained, tmp_path_factory):
    """What each of the two scores when served."""
    return [measure(b, tmp_path_factory.mktemp("var")) for b in (committed, retrained)]


def measure(bundle, data_dir):
    train, test = load_dataset("digits"), load_dataset("digits:test")
    mirrored = test.images[:, :, ::-1]
    ood = {"mirrored": type(test)("mirrored", mirrored, None, ())}
    models = bundle.path.parent.parent
    with (
        running_server(models=models, data_dir=data_dir) as address,
        embedkit.connect(address) as client,
    ):
        context = Context(
            client.model("digits"), train, test, ood, bundle=bundle, options=Options()
        )
        report = evaluate(context, SUITE)
    assert report.is_valid
    assert {result.status for result in report.results} == {"ok"}
    return {
        f"{result.task}.{name}": metric
        for result in report.results
        for name, metric in result.metrics.items()
    }


def test_the_committed_bundle_is_whole_small_and_says_where_it_comes_from(
    committed, repository
):
    committed.verify()
    recipe = Recipe.load(repository / "recipes" / "digits.toml")
    assert committed.manifest.recipe_digest == recipe.digest
    assert committed.read("recipe.toml").decode() == recipe.to_toml()
    assert committed.manifest.data_digest == load_dataset("digits").digest
    assert committed.manifest.licence == "Apache-2.0"
    assert not committed.manifest.git_revision.endswith("-dirty")
    files = [path for path in committed.path.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < LIMIT_BYTES
    for path in files:
        assert str(repository).encode() not in path.read_bytes(), path


def test_the_recipe_gives_the_committed_bundle(reports):
    old, new = reports
    assert old.keys() == new.keys()
    for name, metric in old.items():
        if metric.unit in ("fraction", ""):
            assert overlap(metric.ci, new[name].ci), (name, metric, new[name])


def overlap(a, b):
    return max(a[0], b[0]) <= min(a[1], b[1])


def test_the_score_is_the_one_that_the_recipe_states(reports, repository):
    expected = Recipe.load(repository / "recipes" / "digits.toml").expected
    assert expected
    for name, value in expected.items():
        for report in reports:
            low, high = report[name].ci
            assert low <= value <= high


def test_training_beats_raw_pixels_and_chance_by_far(reports):
    for report in reports:
        assert report["knn.top1"].value > 0.97
        assert report["ood.mirrored.knn.auroc"].value > 0.7


def test_both_bundles_embed_alike(committed, retrained):
    """Not bit for bit on every processor, but the same training up to rounding or luck."""
    test = load_dataset("digits:test").images[:200]
    a, b = (embedkit.load(bundle.path).embed(test) for bundle in (committed, retrained))
    gram_a, gram_b = a @ a.T, b @ b.T
    upper = np.triu_indices(len(test), 1)
    correlation = np.corrcoef(gram_a[upper], gram_b[upper])[0, 1]
    assert correlation > 0.8
    assert math.isclose(np.linalg.norm(a[0]), 1, rel_tol=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_demo_runs_whole(repository, tmp_path):
    out = tmp_path / "demo"
    run(repository, "demo", "--out", str(out))
    report = json.loads((out / "report" / "report.json").read_text())
    assert report["status"] == "valid"
    assert {result["task"]: result["status"] for result in report["results"]} == dict.fromkeys(
        ("classify", "knn", "linear", "ood", "robustness", "parity"), "ok"
    )
    metrics = {result["task"]: result["metrics"] for result in report["results"]}
    attacked = metrics["robustness"]["pgd.16.cosine_shift"]["n"]
    assert attacked >= 100
    assert set(load_sets(report)) == {"photo_patches", "mirrored_digits"}
    assert "<html" in (out / "report" / "report.html").read_text()


def load_sets(report):
    return report["data"]["ood"]
