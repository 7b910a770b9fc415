"""``embedkit train`` as a user runs it: a process that may be killed."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from embedkit.cli.train import command
from embedkit.errors import AlreadyExists, InvalidInput
from embedkit.train.loop import train
from embedkit.train.recipe import Recipe


@pytest.fixture
def recipe(small, tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(small(schedule={"epochs": 60}, run={"checkpoint_steps": 7}).to_toml())
    return path


def start(recipe, out, *more):
    arguments = ["train", str(recipe), "--out", str(out), *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "embedkit", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_lines(path, count):
    deadline = time.monotonic() + 120
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert time.monotonic() < deadline, "the run wrote no metrics"
        time.sleep(0.002)


def test_a_killed_and_interrupted_process_ends_at_the_same_weights(recipe, tmp_path):
    out = tmp_path / "cut"
    process = start(recipe, out)
    wait_for_lines(out / "metrics.jsonl", 50)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert (out / "checkpoint.pt").exists()

    process = start(recipe, out, "--resume")
    wait_for_lines(out / "metrics.jsonl", 80)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "the checkpoint is written, continue with --resume" in errors
    assert "Traceback" not in errors
    assert not (out / "run.json").exists()

    train(Recipe.load(recipe), out, resume=True)
    train(Recipe.load(recipe), tmp_path / "whole")
    first = load_file(tmp_path / "whole" / "encoder.safetensors")
    second = load_file(out / "encoder.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_overrides_and_output(recipe, tmp_path):
    arguments = [str(recipe), "--out", str(tmp_path / "run"), "--set", "schedule.max_steps=2"]
    result = CliRunner().invoke(command, [*arguments, "--set", "objective.name=vicreg"])
    assert result.exit_code == 0, result.output
    assert "trained resnet with vicreg: 2 steps of 16 images" in result.output
    assert "step 2/2 epoch" in result.output


def test_a_wrong_setting_is_an_embedkit_error(recipe, tmp_path):
    arguments = [str(recipe), "--out", str(tmp_path / "run"), "--set", "schedule.epoch=2"]
    result = CliRunner().invoke(command, arguments)
    assert isinstance(result.exception, InvalidInput)
    assert "did you mean 'epochs'" in str(result.exception)


def test_a_wrong_argument_does_not_spoil_the_folder_for_the_next_try(recipe, tmp_path):
    arguments = [str(recipe), "--out", str(tmp_path / "run"), "--set", "schedule.max_steps=1"]
    first = CliRunner().invoke(command, [*arguments, "--set", "encoder.name=resnett"])
    assert "did you mean" in str(first.exception)
    again = CliRunner().invoke(command, arguments)
    assert again.exit_code == 0, again.output
    third = CliRunner().invoke(command, arguments)
    assert isinstance(third.exception, AlreadyExists)


def test_a_run_that_is_not_there_is_begun_and_that_is_said(recipe, tmp_path):
    arguments = [str(recipe), "--out", str(tmp_path / "run"), "--set", "schedule.max_steps=1"]
    result = CliRunner().invoke(command, [*arguments, "--resume"])
    assert result.exit_code == 0, result.output
    assert f"no run in {tmp_path / 'run'} to go on with" in result.output
    again = CliRunner().invoke(command, [*arguments, "--resume"])
    assert "to go on with" not in again.output


def test_size_and_cost_of_the_encoder_are_printed(recipe, tmp_path):
    arguments = [str(recipe), "--out", str(tmp_path / "run"), "--set", "schedule.max_steps=1"]
    result = CliRunner().invoke(command, arguments)
    assert re.search(
        r"encoder: [\d.]+ k parameters, [\d.]+ [kM] FLOPs per image", result.output
    )


def test_strict_refuses_an_unreadable_file(tmp_path, small):
    from PIL import Image

    folder = tmp_path / "photos" / "cat"
    folder.mkdir(parents=True)
    for i in range(8):
        Image.new("RGB", (8, 8), (i, i, i)).save(folder / f"{i}.png")
    (folder / "cut.png").write_bytes(b"not an image")
    path = tmp_path / "photos.toml"
    path.write_text(small(data={"source": str(tmp_path / "photos")}).to_toml())
    arguments = [str(path), "--out", str(tmp_path / "run"), "--strict"]
    done = CliRunner().invoke(command, arguments)
    assert isinstance(done.exception, InvalidInput)
    assert "without --strict (or data.strict in a recipe) they are left out" in str(
        done.exception
    )


@pytest.mark.slow
def test_two_processes_speak_once(recipe, tmp_path):
    """Both import torch on what may be one busy core."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "embedkit", "train", str(recipe)]
    command += ["--set", "schedule.max_steps=3", "--out", str(tmp_path / "run")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trained resnet") == 1
    assert (tmp_path / "run" / "encoder.safetensors").exists()
