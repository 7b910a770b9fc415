"""TriBYOL: view 1 with view 2 and with view 3, in both directions."""

import numpy as np
import pytest
import torch
from torch import nn

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch
from embedkit.train.objectives.tribyol import TriBYOL


def distance(prediction, target):
    total = 0.0
    for q, z in zip(prediction, target, strict=True):
        total += np.sum((q / np.linalg.norm(q) - z / np.linalg.norm(z)) ** 2)
    return total / len(prediction)


def test_both_pairs_of_the_first_view(rng):
    student, teacher = rng.normal(size=(2, 3, 5, 4))
    matrix = rng.normal(size=(4, 4))
    predictor = nn.Linear(4, 4, bias=False)
    with torch.no_grad():
        predictor.weight.copy_(torch.tensor(matrix))
    q = student @ matrix.T
    second = (distance(q[0], teacher[1]) + distance(q[1], teacher[0])) / 2
    third = (distance(q[0], teacher[2]) + distance(q[2], teacher[0])) / 2
    loss = TriBYOL()(_batch(student, teacher, predictor))
    assert loss.parts["second"].item() == pytest.approx(second, rel=1e-5)
    assert loss.parts["third"].item() == pytest.approx(third, rel=1e-5)


def test_perfect_prediction_costs_nothing(rng):
    z = np.stack([rng.normal(size=(4, 3))] * 3)
    assert TriBYOL()(_batch(z, z, nn.Identity())).total.item() == pytest.approx(0, abs=1e-6)


def test_momentum_rises_to_one():
    assert TriBYOL(momentum=0.9).teacher_momentum(0.0) == pytest.approx(0.9)
    assert TriBYOL(momentum=0.9).teacher_momentum(1.0) == pytest.approx(1.0)


@pytest.mark.parametrize("arguments", [{"momentum": 2.0}, {"hidden": -1}])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(InvalidInput, match="expected a"):
        TriBYOL(**arguments)


def _batch(student, teacher, predictor):
    z, t = (torch.tensor(a, dtype=torch.float32) for a in (student, teacher))
    return Batch(z, z, module=predictor, teacher=t)
