"""The monitor writes what happened and warns of a collapse once."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from embedkit.train.loop import train
from embedkit.train.monitor import Monitor, Progress, measure
from embedkit.train.objective import Loss
from embedkit.train.recipe import Recipe


@pytest.fixture
def spread():
    return torch.randn(2, 64, 16, generator=torch.Generator().manual_seed(0))


def collapsed(scale=1e-4):
    noise = torch.randn(2, 64, 16, generator=torch.Generator().manual_seed(0))
    return torch.ones(2, 64, 16) + scale * noise


def test_even_embeddings(spread):
    measures = measure(spread)
    assert measures.dim == 16
    assert measures.effective_rank > 12
    assert measures.embedding_std == pytest.approx(1 / 4, rel=0.05)
    assert measures.alignment == pytest.approx(2, rel=0.1)
    assert not measures.has_collapsed


def test_measures_agree_with_their_definitions(spread):
    z = spread.numpy()
    z = z / np.linalg.norm(z, axis=-1, keepdims=True)
    pairs = [(i, j) for i in range(64) for j in range(64) if i != j]
    potential = np.mean([math.exp(-2 * np.sum((z[0, i] - z[0, j]) ** 2)) for i, j in pairs])
    measures = measure(spread)
    assert measures.uniformity == pytest.approx(math.log(potential), rel=1e-5)
    squared = np.sum((z[0] - z[1]) ** 2, axis=1)
    assert measures.alignment == pytest.approx(squared.mean(), rel=1e-5)


def test_one_view_has_no_alignment(spread):
    assert measure(spread[:1]).alignment is None


@pytest.mark.parametrize("features", [collapsed(), collapsed().to(torch.bfloat16)])
def test_a_point_is_a_collapse(features):
    assert measure(features).has_collapsed


def test_a_line_is_a_collapse():
    along = torch.linspace(0.5, 2, 64)[None, :, None] * torch.ones(2, 64, 16)
    assert measure(along).has_collapsed


def shrunken():
    """Embeddings of the length 1 around one direction, at a fifth of the even spread."""
    noise = torch.randn(2, 64, 16, generator=torch.Generator().manual_seed(0))
    return torch.eye(16)[0] + 0.05 * noise


@pytest.mark.parametrize(("steps", "warns"), [((2, 4, 8), False), ((2, 9), True)])
def test_a_partial_collapse_is_noticed_after_the_warm_up(tmp_path, steps, warns):
    assert 0.02 < measure(shrunken()).share < 0.25
    monitor = Monitor(tmp_path / "metrics.jsonl", 10, 4, 32, settled=8)
    monitor.start(0)
    for step in steps:
        loss = Loss.sum(a=torch.tensor(5.5))
        monitor.record(step, loss, features=shrunken(), grad_norm=0.5, lr=0.1)
    assert bool(monitor.warnings) is warns


@pytest.mark.parametrize(
    ("extra", "warns"),
    [([], False), (["objective.temperature=5", "optimiser.lr=3", "augmentation=none"], True)],
)
def test_a_run_that_does_not_learn_is_warned_about_and_a_recipe_is_not(tmp_path, extra, warns):
    recipe = Recipe.load(
        Path(__file__).parents[3] / "recipes" / "digits.toml",
        [
            "data.limit=640",
            "schedule.epochs=4",
            "schedule.warmup_epochs=1",
            "run.log_steps=4",
            *extra,
        ],
    )
    assert bool(train(recipe, tmp_path / "run", device="cpu").warnings) is warns


def test_lines_add_up_and_warn_once(tmp_path, spread):
    seen: list[Progress] = []
    monitor = Monitor(tmp_path / "metrics.jsonl", 10, 4, 32, seen.append, seconds=100.0)
    monitor.start(2)
    loss = Loss.sum(a=torch.tensor(1.5), b=torch.tensor(0.25))
    for step, features in ((4, spread), (5, collapsed()), (6, collapsed()), (10, spread)):
        monitor.record(step, loss, features=features, grad_norm=0.5, lr=0.1)
    lines = [json.loads(t) for t in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 5, 6, 10]
    assert [line["epoch"] for line in lines] == [1.0, 1.25, 1.5, 2.5]
    assert [bool(line["warning"]) for line in lines] == [False, True, False, False]
    assert lines[0]["loss"] == 1.75
    assert lines[0]["parts"] == {"a": 1.5, "b": 0.25}
    assert lines[0]["seconds"] >= 100
    assert lines[-1]["eta_s"] == 0
    assert len(monitor.warnings) == 1
    assert "effective rank" in monitor.warnings[0]
    assert monitor.last == seen[-1]
