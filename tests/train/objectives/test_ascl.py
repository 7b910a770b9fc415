"""ASCL: soft targets and the cross entropy with them, written with loops."""

import math

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch, Sizes
from embedkit.train.objectives.ascl import ASCL
from embedkit.train.objectives.moco import MoCo

SIZES = Sizes(dim=3, feature_dim=9)


def unit(z):
    return z / np.linalg.norm(z, axis=-1, keepdims=True)


def queue_of(objective):
    torch.manual_seed(7)
    return objective.build(SIZES)


def softened(student, teacher, queue, objective):
    """Cross entropy with targets 1 and min(1, c K q_j), each row scaled to the sum 1."""
    total = 0.0
    queries, keys = unit(student).reshape(-1, 3), unit(teacher)[::-1].reshape(-1, 3)
    for query, key in zip(queries, keys, strict=True):
        near = np.exp(queue @ key / objective.sharp_temperature)
        near /= near.sum()
        confidence = 1 + np.sum(near * np.log(near)) / math.log(len(queue))
        soft = [min(1.0, confidence * objective.neighbours * share) for share in near]
        targets = np.array([1.0, *soft]) / (1 + sum(soft))
        logits = np.array([query @ key, *(queue @ query)]) / objective.temperature
        total -= targets @ (logits - np.log(np.exp(logits).sum()))
    return total / len(queries)


@pytest.mark.parametrize("neighbours", [1.0, 5.0])
def test_soft_targets(rng, neighbours):
    student, teacher = rng.normal(size=(2, 2, 4, 3))
    objective = ASCL(0.3, sharp_temperature=0.1, neighbours=neighbours, queue=6)
    module = queue_of(objective)
    old = module.vectors.numpy().astype(np.float64)
    loss = objective(_batch(student, teacher, module)).total
    assert loss.item() == pytest.approx(softened(student, teacher, old, objective), rel=1e-4)


def test_without_neighbours_it_is_moco(rng):
    student, teacher = rng.normal(size=(2, 2, 3, 3))
    objective, plain = ASCL(0.2, neighbours=0.0, queue=8), MoCo(0.2, queue=8)
    soft = objective(_batch(student, teacher, queue_of(objective))).total
    hard = plain(_batch(student, teacher, queue_of(plain))).total
    assert soft.item() == pytest.approx(hard.item(), rel=1e-5)


@pytest.mark.parametrize(
    "arguments", [{"temperature": 0.0}, {"queue": 1}, {"neighbours": -1.0}]
)
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(InvalidInput, match=next(iter(arguments))):
        ASCL(**arguments)


def _batch(student, teacher, module):
    z, t = (torch.tensor(a, dtype=torch.float32) for a in (student, teacher))
    return Batch(z, z, module=module, teacher=t)
