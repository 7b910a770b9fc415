"""Decoupled uniformity against its definition, written with loops."""

import math

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch
from embedkit.train.objectives.decoupled_uniformity import DecoupledUniformity


def potential(z, sharpness):
    """Log mean Gaussian potential of the mean unit vectors of all pairs of images."""
    z = z / np.linalg.norm(z, axis=2, keepdims=True)
    means = [(z[0, i] + z[1, i]) / 2 for i in range(z.shape[1])]
    values = [
        math.exp(-sharpness * np.sum((a - b) ** 2))
        for i, a in enumerate(means)
        for k, b in enumerate(means)
        if i != k
    ]
    return math.log(sum(values) / len(values))


@pytest.mark.parametrize(("images", "sharpness"), [(2, 2.0), (7, 1.0)])
def test_definition(rng, images, sharpness):
    z = rng.normal(size=(2, images, 4))
    loss = DecoupledUniformity(sharpness)(_batch(z)).total
    assert loss.item() == pytest.approx(potential(z, sharpness), rel=1e-5)


def test_views_that_agree_cost_less_than_views_that_do_not(rng):
    z = np.eye(8)[:6]
    agreeing = DecoupledUniformity()(_batch(np.stack([z, z]))).total
    turned = DecoupledUniformity()(_batch(np.stack([z, np.roll(z, 1, axis=0)]))).total
    assert agreeing.item() < turned.item()


def test_sharpness_must_be_positive():
    with pytest.raises(InvalidInput, match="sharpness above 0"):
        DecoupledUniformity(sharpness=0.0)


def _batch(z):
    tensor = torch.tensor(z, dtype=torch.float32)
    return Batch(tensor, tensor)
