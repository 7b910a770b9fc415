"""TiCo against equations 1 and 2 of the paper, written with loops."""

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch, Sizes
from embedkit.train.objectives.tico import Covariance, TiCo


def unit(z):
    return z / np.linalg.norm(z, axis=-1, keepdims=True)


def test_equations_1_and_2_over_two_steps(rng):
    objective, module = TiCo(memory=0.8, contrast=3.0), Covariance(4)
    moving = np.zeros((4, 4))
    for _ in range(2):
        student, teacher = rng.normal(size=(2, 2, 5, 4))
        loss = objective(_batch(student, teacher, module))
        rows, targets = unit(student).reshape(10, 4), unit(teacher)[::-1].reshape(10, 4)
        moving = 0.8 * moving + 0.2 * sum(np.outer(z, z) for z in rows) / 10
        invariance = 1 - sum(z @ t for z, t in zip(rows, targets, strict=True)) / 10
        contrast = 3.0 * sum(z @ moving @ z for z in rows) / 10
        assert loss.parts["invariance"].item() == pytest.approx(invariance, rel=1e-5)
        assert loss.parts["contrast"].item() == pytest.approx(contrast, rel=1e-5)
        assert np.allclose(module.matrix.numpy(), moving, atol=1e-6)


def test_a_common_direction_costs_more_than_spread(rng):
    spread = np.eye(4)[[0, 1, 2, 3]]
    collapsed = np.eye(4)[[0, 0, 0, 0]]
    costs = []
    for z in (spread, collapsed):
        both = np.stack([z, z])
        costs.append(TiCo()(_batch(both, both, Covariance(4))).total.item())
    assert costs[0] < costs[1] / 3


def test_the_covariance_starts_at_0():
    module = TiCo().build(Sizes(dim=4, feature_dim=9))
    assert isinstance(module, Covariance)
    assert module.matrix.shape == (4, 4)
    assert not module.matrix.any()


def test_momentum_rises_to_1():
    assert TiCo(momentum=0.9).teacher_momentum(0.0) == pytest.approx(0.9)
    assert TiCo(momentum=0.9).teacher_momentum(1.0) == pytest.approx(1.0)


@pytest.mark.parametrize("arguments", [{"memory": 1.0}, {"contrast": -1.0}, {"momentum": 1.1}])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(InvalidInput, match=next(iter(arguments))):
        TiCo(**arguments)


def _batch(student, teacher, module):
    z, t = (torch.tensor(a, dtype=torch.float32) for a in (student, teacher))
    return Batch(z, z, module=module, teacher=t)
