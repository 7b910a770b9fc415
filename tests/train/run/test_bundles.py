"""Objectives that learn from finished models."""

import json

import numpy as np
import pytest

import embedkit
from embedkit.errors import InvalidInput
from embedkit.train.loop import train


@pytest.fixture
def recipe(small):
    return small(
        objective={"name": "embedding_distillation", "teacher": "there"},
        schedule={"max_steps": 2},
        run={"checkpoint_steps": 1},
    )


class Opened:
    """Opens bundles that embed at random, and notes their names."""

    dim = 3

    def __init__(self, digest="sha256:a"):
        self.digest, self.names, self.images = digest, [], 0

    def __call__(self, name):
        self.names.append(name)
        return self

    def embed(self, images):
        self.images += len(images)
        rng = np.random.default_rng(0)
        return rng.normal(size=(len(images), self.dim)).astype(np.float32)


def test_every_image_is_embedded_once(recipe, tmp_path):
    opened = Opened()
    train(recipe, tmp_path / "run", load_bundle=opened)
    assert opened.names == ["there"]
    assert opened.images == 70


def test_without_a_bundle_it_says_where_to_name_one(small, tmp_path):
    recipe = small(objective={"name": "embedding_distillation"})
    with pytest.raises(InvalidInput, match=r"finished model.*objective\.teacher"):
        train(recipe, tmp_path / "run", load_bundle=Opened())


def test_without_anything_to_open_it_with_it_says_so(recipe, tmp_path):
    with pytest.raises(InvalidInput, match=r"load_bundle=embedkit\.load"):
        train(recipe, tmp_path / "run")


def test_a_finished_run_that_learned_from_another_model_is_refused(recipe, tmp_path):
    first = train(recipe, tmp_path / "run", load_bundle=Opened())
    assert first.embedder_digests == ("sha256:a",)
    assert train(recipe, tmp_path / "run", resume=True, load_bundle=Opened()) == first
    with pytest.raises(InvalidInput, match=r"sha256:a.*sha256:b.*another --out"):
        train(recipe, tmp_path / "run", resume=True, load_bundle=Opened("sha256:b"))


def test_another_model_under_the_same_name_is_not_gone_on_with(recipe, tmp_path):
    class CrashError(Exception):
        pass

    def report(progress):
        if progress.step == 2:
            raise CrashError

    with pytest.raises(CrashError):
        train(recipe, tmp_path / "run", load_bundle=Opened(), report=report)
    with pytest.raises(InvalidInput, match=r"sha256:a.*sha256:b.*another --out"):
        train(recipe, tmp_path / "run", resume=True, load_bundle=Opened("sha256:b"))


def test_it_learns_from_a_served_model(small, tmp_path, repository):
    teacher = str(repository / "models" / "digits" / "1")
    recipe = small(
        objective={"name": "embedding_distillation", "teacher": teacher, "head": "linear"},
        data={"limit": 200},
        encoder={"width": 16},
        schedule={"epochs": 6, "batch_size": 50},
        optimiser={"lr": 1e-2},
        augmentation="none",
    )
    train(recipe, tmp_path / "run", load_bundle=embedkit.load)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    distances = [json.loads(line)["parts"]["cosine"] for line in lines]
    # 2 where student and teacher are unrelated.
    assert np.mean(distances[-3:]) < 0.5 * np.mean(distances[:3])
