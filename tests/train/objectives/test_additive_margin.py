"""NT-Xent-AM against its definition, written with loops."""

import math

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch
from embedkit.train.objectives.additive_margin import AdditiveMargin
from embedkit.train.objectives.simclr import SimCLR


def with_margin(z, temperature, margin):
    """NT-Xent whose positive cosine is lowered in numerator and denominator."""
    v, b, _ = z.shape
    z = z / np.linalg.norm(z, axis=2, keepdims=True)
    total = 0.0
    for view in range(v):
        for i in range(b):
            positive = math.exp((z[view, i] @ z[1 - view, i] - margin) / temperature)
            negatives = sum(
                math.exp(z[view, i] @ z[other, k] / temperature)
                for other in range(v)
                for k in range(b)
                if k != i
            )
            total += -math.log(positive / (positive + negatives))
    return total / (v * b)


@pytest.mark.parametrize(("images", "margin"), [(2, 0.1), (7, 0.4)])
def test_definition(rng, images, margin):
    z = rng.normal(size=(2, images, 5))
    loss = AdditiveMargin(0.3, margin)(_batch(z)).total
    assert loss.item() == pytest.approx(with_margin(z, 0.3, margin), rel=1e-5)


def test_without_a_margin_it_is_simclr(rng):
    z = rng.normal(size=(2, 6, 4))
    loss = AdditiveMargin(0.2, margin=0.0)(_batch(z)).total
    assert loss.item() == pytest.approx(SimCLR(0.2)(_batch(z)).total.item(), rel=1e-5)


@pytest.mark.parametrize("arguments", [{"temperature": 0.0}, {"margin": -0.1}])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(InvalidInput, match=next(iter(arguments))):
        AdditiveMargin(**arguments)


def _batch(z):
    tensor = torch.tensor(z, dtype=torch.float32)
    return Batch(tensor, tensor)
