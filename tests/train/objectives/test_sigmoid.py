"""The sigmoid loss against section 3.2 of the paper, written with loops."""

import math

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch, Sizes
from embedkit.train.objectives.sigmoid import ScaleAndBias, Sigmoid


def pairwise(z, scale, bias):
    """Minus the log-sigmoid of every pair with its sign, over the number of images."""
    z = z / np.linalg.norm(z, axis=2, keepdims=True)
    b = z.shape[1]
    total = 0.0
    for i in range(b):
        for k in range(b):
            sign = 1 if i == k else -1
            total += -math.log(1 / (1 + math.exp(sign * -(scale * (z[0, i] @ z[1, k]) + bias))))
    return total / b


@pytest.mark.parametrize(("images", "bias"), [(2, -10.0), (6, -1.0)])
def test_section_3_2(rng, images, bias):
    z = rng.normal(size=(2, images, 5))
    loss = Sigmoid()(_batch(z, ScaleAndBias(0.2, bias))).total
    assert loss.item() == pytest.approx(pairwise(z, 5.0, bias), rel=1e-5)


def test_scale_and_bias_start_as_in_the_paper():
    module = Sigmoid().build(Sizes(dim=4, feature_dim=4))
    assert isinstance(module, ScaleAndBias)
    assert module.log_scale.item() == pytest.approx(math.log(10))
    assert module.bias.item() == -10
    assert module(torch.tensor(0.5)).item() == pytest.approx(-5, rel=1e-5)


def test_another_module_is_refused(rng):
    with pytest.raises(InvalidInput, match="expected the ScaleAndBias"):
        Sigmoid()(_batch(rng.normal(size=(2, 3, 4)), torch.nn.Identity()))


def test_temperature_must_be_positive():
    with pytest.raises(InvalidInput, match="temperature above 0"):
        Sigmoid(temperature=0.0)


def _batch(z, module):
    tensor = torch.tensor(z, dtype=torch.float32)
    return Batch(tensor, tensor, module=module)
