"""Debiased contrast against equations 7 and 8 of the paper, written with loops."""

import math

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch
from embedkit.train.objectives.debiased import Debiased
from embedkit.train.objectives.simclr import SimCLR


def debiased(z, temperature, tau):
    """Equation 8 with the estimate of equation 7, for M = 1 and N = 2b - 2."""
    v, b, _ = z.shape
    z = z / np.linalg.norm(z, axis=2, keepdims=True)
    n = 2 * b - 2
    total = 0.0
    for view in range(v):
        for i in range(b):
            positive = math.exp(z[view, i] @ z[1 - view, i] / temperature)
            mean = (
                sum(
                    math.exp(z[view, i] @ z[other, k] / temperature)
                    for other in range(v)
                    for k in range(b)
                    if k != i
                )
                / n
            )
            estimate = max((mean - tau * positive) / (1 - tau), math.exp(-1 / temperature))
            total += -math.log(positive / (positive + n * estimate))
    return total / (v * b)


@pytest.mark.parametrize(("images", "same_class"), [(2, 0.1), (7, 0.05), (7, 0.6)])
def test_equations_7_and_8(rng, images, same_class):
    z = rng.normal(size=(1, images, 5)) + 0.3 * rng.normal(size=(2, images, 5))
    loss = Debiased(0.5, same_class)(_batch(z)).total
    assert loss.item() == pytest.approx(debiased(z, 0.5, same_class), rel=1e-5)


def test_without_a_bias_it_is_simclr(rng):
    z = rng.normal(size=(2, 6, 4))
    loss = Debiased(temperature=0.2, same_class=0.0)(_batch(z)).total
    assert loss.item() == pytest.approx(SimCLR(0.2)(_batch(z)).total.item(), rel=1e-5)


def test_low_temperature_stays_finite(rng):
    z = torch.tensor(rng.normal(size=(2, 4, 3)), dtype=torch.float32, requires_grad=True)
    loss = Debiased(temperature=0.02)(Batch(z, z)).total
    loss.backward()
    assert torch.isfinite(loss)
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()


@pytest.mark.parametrize("arguments", [{"temperature": 0.0}, {"same_class": 1.0}])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(InvalidInput, match=next(iter(arguments))):
        Debiased(**arguments)


def _batch(z):
    tensor = torch.tensor(z, dtype=torch.float32)
    return Batch(tensor, tensor)
