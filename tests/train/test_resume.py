"""Interrupted runs go on to the same weights, or say why not."""

import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest

from embedkit.errors import AlreadyExists, BundleDamaged, Cancelled, InvalidInput
from embedkit.train.loop import train
from embedkit.train.monitor import Progress
from tests.train.runs import STEPS, assert_same_weights, metrics, train_until, weights


@pytest.mark.parametrize("step", range(1, STEPS))
def test_a_run_killed_at_any_step_ends_at_the_same_weights(small, tmp_path, step):
    recipe = small()
    train(recipe, tmp_path / "whole")
    train_until(recipe, tmp_path / "cut", step)
    train(recipe, tmp_path / "cut", resume=True)
    assert_same_weights(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    steps = [line["step"] for line in metrics(tmp_path / "cut")]
    assert steps == list(range(1, STEPS + 1))
    losses = [[line["loss"] for line in metrics(tmp_path / out)] for out in ("whole", "cut")]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    "sections",
    [
        {"objective": {"name": "byol"}},
        {"objective": {"name": "cross_entropy"}, "run": {"ema": 0.9}},
        {"objective": {"name": "supcon"}, "optimiser": {"name": "lars", "lr": 1.0}},
        {"objective": {"name": "vicreg"}, "optimiser": {"name": "sgd", "lr": 0.01}},
        {"run": {"precision": "bf16"}, "optimiser": {"clip_norm": 0.5}},
        {"run": {"channels_last": False}, "augmentation": "none"},
    ],
    ids=["teacher", "ema", "lars", "sgd", "bf16", "contiguous"],
)
def test_every_kind_of_state_survives_a_kill(small, tmp_path, sections):
    recipe = small(**sections)
    train(recipe, tmp_path / "whole")
    for step in (4, 5, 7):
        train_until(recipe, tmp_path / "cut", step)
    train(recipe, tmp_path / "cut", resume=True)
    assert_same_weights(weights(tmp_path / "whole"), weights(tmp_path / "cut"))


def test_a_finished_run_is_not_run_again(small, tmp_path):
    first = train(small(), tmp_path / "run")
    again = train(small(), tmp_path / "run", resume=True)
    assert again == first


def test_a_run_killed_while_finishing_is_finished(small, tmp_path):
    first = train(small(), tmp_path / "run")
    before = weights(tmp_path / "run")
    for name in ("run.json", "encoder.safetensors", "encoder.json"):
        (tmp_path / "run" / name).unlink()
    assert train(small(), tmp_path / "run", resume=True) == first
    assert_same_weights(before, weights(tmp_path / "run"))


def test_a_crash_costs_the_steps_since_the_last_checkpoint_alone(small, tmp_path):
    train_until(small(), tmp_path / "run", 5)
    seen: list[Progress] = []
    train(small(), tmp_path / "run", resume=True, report=seen.append)
    # A checkpoint was written after step 3.
    assert [progress.step for progress in seen] == [4, 5, 6, 7, 8]


def test_an_existing_run_is_not_overwritten(small, tmp_path):
    train(small(), tmp_path / "run")
    with pytest.raises(AlreadyExists, match="--resume"):
        train(small(), tmp_path / "run")


def test_another_recipe_is_not_resumed(small, tmp_path):
    train_until(small(), tmp_path / "run", 5)
    with pytest.raises(InvalidInput, match="got another"):
        train(small(seed=9), tmp_path / "run", resume=True)


def test_other_data_is_not_resumed(small, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "set.npz", images=images)
    recipe = small(data={"source": str(tmp_path / "set.npz")})
    train_until(recipe, tmp_path / "run", 4)
    np.savez(tmp_path / "set.npz", images=images[::-1])
    with pytest.raises(InvalidInput, match="data that the run was started with"):
        train(recipe, tmp_path / "run", resume=True)


def test_a_finished_run_on_other_data_is_not_passed_off_as_this_one(small, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "set.npz", images=images)
    recipe = small(data={"source": str(tmp_path / "set.npz")})
    first = train(recipe, tmp_path / "run")
    np.savez(tmp_path / "set.npz", images=images[::-1])
    with pytest.raises(InvalidInput, match="data that the run was started with"):
        train(recipe, tmp_path / "run", resume=True)
    np.savez(tmp_path / "set.npz", images=images)
    assert train(recipe, tmp_path / "run", resume=True) == first


def test_a_run_finished_by_an_earlier_version_is_read(small, tmp_path):
    first = train(small(), tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    values = json.loads(path.read_text())
    del values["embedder_digests"]
    path.write_text(json.dumps(values))
    again = train(small(), tmp_path / "run", resume=True)
    assert again == replace(first, embedder_digests=None)


def test_a_damaged_checkpoint_is_reported(small, tmp_path):
    train_until(small(), tmp_path / "run", 5)
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"torn")
    with pytest.raises(BundleDamaged, match=r"checkpoint\.pt.*delete it"):
        train(small(), tmp_path / "run", resume=True)


def test_ctrl_c_writes_a_checkpoint_and_says_how_to_go_on(small, tmp_path):
    def report(progress):
        if progress.step == 4:
            os.kill(os.getpid(), signal.SIGINT)

    train(small(), tmp_path / "whole")
    with pytest.raises(Cancelled, match=r"step 4 of 8.*--resume"):
        train(small(), tmp_path / "run", report=report)
    assert [line["step"] for line in metrics(tmp_path / "run")] == [1, 2, 3, 4]
    seen: list[Progress] = []
    train(small(), tmp_path / "run", resume=True, report=seen.append)
    assert [progress.step for progress in seen] == [5, 6, 7, 8]
    assert_same_weights(weights(tmp_path / "whole"), weights(tmp_path / "run"))
