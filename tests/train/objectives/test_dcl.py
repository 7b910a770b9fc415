"""DCL against its definition, written with loops."""

import math

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch
from embedkit.train.objectives.dcl import DCL
from embedkit.train.objectives.simclr import SimCLR


def decoupled(z, temperature):
    """Minus the positive's logit, plus the log of the sum over both views of other images."""
    v, b, _ = z.shape
    z = z / np.linalg.norm(z, axis=2, keepdims=True)
    total = 0.0
    for view in range(v):
        for i in range(b):
            positive = z[view, i] @ z[1 - view, i] / temperature
            negatives = sum(
                math.exp(z[view, i] @ z[other, k] / temperature)
                for other in range(v)
                for k in range(b)
                if k != i
            )
            total += math.log(negatives) - positive
    return total / (v * b)


@pytest.mark.parametrize(("images", "temperature"), [(2, 0.1), (7, 0.5)])
def test_equation(rng, images, temperature):
    z = rng.normal(size=(2, images, 5))
    loss = DCL(temperature)(_batch(z)).total
    assert loss.item() == pytest.approx(decoupled(z, temperature), rel=1e-5)


def test_simclr_is_more_by_what_the_positive_adds_to_the_denominator(rng):
    z = rng.normal(size=(2, 6, 4))
    unit = z / np.linalg.norm(z, axis=2, keepdims=True)
    positive = np.sum(unit[0] * unit[1], axis=1) / 0.2
    more = []
    for view in range(2):
        for i in range(6):
            rest = unit[:, [k for k in range(6) if k != i]] @ unit[view, i] / 0.2
            more.append(np.log(np.exp(rest).sum() + np.exp(positive[i])))
            more[-1] -= np.log(np.exp(rest).sum())
    difference = SimCLR(0.2)(_batch(z)).total - DCL(0.2)(_batch(z)).total
    assert difference.item() == pytest.approx(np.mean(more), rel=1e-4)


def test_low_temperature_stays_finite(rng):
    z = torch.tensor(rng.normal(size=(2, 4, 3)), dtype=torch.float32, requires_grad=True)
    DCL(temperature=1e-3)(Batch(z, z)).total.backward()
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()


def test_temperature_must_be_positive():
    with pytest.raises(InvalidInput, match="temperature above 0"):
        DCL(temperature=0.0)


def _batch(z):
    tensor = torch.tensor(z, dtype=torch.float32)
    return Batch(tensor, tensor)
