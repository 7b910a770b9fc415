"""MoCo against equation 1 of the paper, written with loops; and its queue."""

import math

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch, Sizes
from embedkit.train.objectives.moco import MoCo
from embedkit.train.terms import Queue

SIZES = Sizes(dim=4, feature_dim=9)


def unit(z):
    return z / np.linalg.norm(z, axis=-1, keepdims=True)


def info_nce(student, teacher, queue, temperature):
    """Equation 1, averaged over images and over which view is the query."""
    total, (v, b, _) = 0.0, student.shape
    for view in range(v):
        for i in range(b):
            query, key = unit(student[view, i]), unit(teacher[1 - view, i])
            positive = math.exp(query @ key / temperature)
            negatives = sum(math.exp(query @ old / temperature) for old in queue)
            total += -math.log(positive / (positive + negatives))
    return total / (v * b)


@pytest.mark.parametrize("images", [2, 5])
def test_equation_1(rng, images):
    student, teacher = rng.normal(size=(2, 2, images, 4))
    objective = MoCo(temperature=0.3, queue=8)
    module = objective.build(SIZES)
    assert isinstance(module, Queue)
    old = module.vectors.numpy().astype(np.float64)
    loss = objective(_batch(student, teacher, module)).total
    assert loss.item() == pytest.approx(info_nce(student, teacher, old, 0.3), rel=1e-5)


def test_the_next_batch_meets_the_keys_of_this_one(rng):
    student, teacher = rng.normal(size=(2, 2, 3, 4))
    objective = MoCo(queue=6)
    module = objective.build(SIZES)
    assert isinstance(module, Queue)
    objective(_batch(student, teacher, module))
    remembered = {tuple(row) for row in np.round(module.vectors.numpy(), 5)}
    assert remembered == {
        tuple(row) for row in np.round(unit(teacher).reshape(6, 4).astype(np.float32), 5)
    }
    again = objective(_batch(student, teacher, module)).total
    old = unit(teacher).reshape(6, 4)
    assert again.item() == pytest.approx(info_nce(student, teacher, old, 0.2), rel=1e-4)


def test_no_gradient_reaches_teacher_or_queue(rng):
    student, teacher = (
        torch.tensor(rng.normal(size=(2, 3, 4)), dtype=torch.float32, requires_grad=True)
        for _ in range(2)
    )
    module = MoCo(queue=8).build(SIZES)
    MoCo(queue=8)(Batch(student, student, module=module, teacher=teacher)).total.backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_momentum_rises_to_1():
    assert MoCo(momentum=0.9).teacher_momentum(0.0) == pytest.approx(0.9)
    assert MoCo(momentum=0.9).teacher_momentum(1.0) == pytest.approx(1.0)


@pytest.mark.parametrize("arguments", [{"temperature": 0.0}, {"queue": 0}, {"momentum": 1.1}])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(InvalidInput, match=next(iter(arguments))):
        MoCo(**arguments)


def _batch(student, teacher, module):
    z, t = (torch.tensor(a, dtype=torch.float32) for a in (student, teacher))
    return Batch(z, z, module=module, teacher=t)
