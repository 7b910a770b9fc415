"""BYOL against equation 2 and the momentum schedule of the paper."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch, Sizes
from embedkit.train.objectives.byol import BYOL


def regression(prediction, target):
    """Equation 2: squared distance of unit vectors, averaged over images."""
    total = 0.0
    for q, z in zip(prediction, target, strict=True):
        total += np.sum((q / np.linalg.norm(q) - z / np.linalg.norm(z)) ** 2)
    return total / len(prediction)


@pytest.mark.parametrize("images", [2, 5])
def test_equation_2_in_both_directions(rng, images):
    student, teacher = rng.normal(size=(2, 2, images, 4))
    matrix = rng.normal(size=(4, 4))
    predictor = nn.Linear(4, 4, bias=False)
    with torch.no_grad():
        predictor.weight.copy_(torch.tensor(matrix))
    loss = BYOL()(_batch(student, teacher, predictor))
    predicted = student @ matrix.T
    first = regression(predicted[0], teacher[1])
    second = regression(predicted[1], teacher[0])
    assert loss.parts["first"].item() == pytest.approx(first, rel=1e-5)
    assert loss.total.item() == pytest.approx(first + second, rel=1e-5)


def test_perfect_prediction_costs_nothing(rng):
    z = rng.normal(size=(4, 3))
    both = np.stack([z, z])
    assert BYOL()(_batch(both, both, nn.Identity())).total.item() == pytest.approx(0, abs=1e-6)


def test_no_gradient_reaches_the_teacher(rng):
    student, teacher = (
        torch.tensor(rng.normal(size=(2, 4, 3)), dtype=torch.float32, requires_grad=True)
        for _ in range(2)
    )
    batch = Batch(student, student, module=nn.Identity(), teacher=teacher)
    BYOL()(batch).total.backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_momentum_rises_along_a_cosine():
    objective = BYOL(momentum=0.9)
    assert objective.teacher_momentum(0.0) == pytest.approx(0.9)
    assert objective.teacher_momentum(0.25) == pytest.approx(
        1 - 0.1 * (math.cos(math.pi / 4) + 1) / 2
    )
    assert objective.teacher_momentum(1.0) == pytest.approx(1.0)


def test_the_predictor_keeps_the_dimensions():
    predictor = BYOL(hidden=16).build(Sizes(dim=6, feature_dim=9))
    assert predictor is not None
    assert predictor(torch.zeros(3, 6)).shape == (3, 6)


def test_without_a_teacher_it_says_what_is_missing(rng):
    z = torch.tensor(rng.normal(size=(2, 4, 3)), dtype=torch.float32)
    with pytest.raises(InvalidInput, match="expected a batch with teacher"):
        BYOL()(Batch(z, z, module=nn.Identity()))


@pytest.mark.parametrize("arguments", [{"momentum": 1.5}, {"hidden": -1}])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(InvalidInput, match="momentum in"):
        BYOL(**arguments)


def _batch(student, teacher, predictor):
    z, t = (torch.tensor(a, dtype=torch.float32) for a in (student, teacher))
    return Batch(z, z, module=predictor, teacher=t)
