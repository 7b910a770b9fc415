"""DCLW against its definition, written with loops."""

import math

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch
from embedkit.train.objectives.dcl import DCL
from embedkit.train.objectives.dclw import DCLW


def weighted(z, temperature, sigma):
    """DCL with each positive weighted by 2 minus its share of the mean exponential."""
    v, b, _ = z.shape
    z = z / np.linalg.norm(z, axis=2, keepdims=True)
    exponentials = [math.exp(z[0, i] @ z[1, i] / sigma) for i in range(b)]
    mean = sum(exponentials) / b
    total = 0.0
    for view in range(v):
        for i in range(b):
            weight = 2 - exponentials[i] / mean
            negatives = sum(
                math.exp(z[view, i] @ z[other, k] / temperature)
                for other in range(v)
                for k in range(b)
                if k != i
            )
            total += math.log(negatives) - weight * (z[0, i] @ z[1, i]) / temperature
    return total / (v * b)


@pytest.mark.parametrize(("images", "sigma"), [(2, 0.5), (7, 0.2)])
def test_equation(rng, images, sigma):
    z = rng.normal(size=(2, images, 5))
    loss = DCLW(temperature=0.3, sigma=sigma)(_batch(z)).total
    assert loss.item() == pytest.approx(weighted(z, 0.3, sigma), rel=1e-5)


def test_a_wide_sigma_is_dcl(rng):
    z = rng.normal(size=(2, 6, 4))
    wide, plain = DCLW(0.2, sigma=1e6)(_batch(z)).total, DCL(0.2)(_batch(z)).total
    assert wide.item() == pytest.approx(plain.item(), rel=1e-4)


@pytest.mark.parametrize("arguments", [{"temperature": 0.0}, {"sigma": 0.0}])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(InvalidInput, match="above 0"):
        DCLW(**arguments)


def _batch(z):
    tensor = torch.tensor(z, dtype=torch.float32)
    return Batch(tensor, tensor)
