"""Runs that are cut off, and what they leave."""

import json

import pytest
import torch
from safetensors.torch import load_file

from embedkit.train.loop import train

STEPS = 8


class CrashError(Exception):
    """Stands for a crash: the loop must not get the chance to tidy up."""


def weights(path):
    return load_file(path / "encoder.safetensors")


def metrics(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def train_until(recipe, out, step):
    """Train, and crash after the metrics of ``step`` were written."""

    def report(progress):
        if progress.step == step:
            raise CrashError

    with pytest.raises(CrashError):
        train(recipe, out, resume=True, report=report)


def assert_same_weights(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
