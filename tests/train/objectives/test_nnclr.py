"""NNCLR against equations 2 to 4 of the paper, written with loops."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch, Sizes
from embedkit.train.objectives.nnclr import NNCLR, PredictorAndSupport

SIZES = Sizes(dim=4, feature_dim=9)


def unit(z):
    return z / np.linalg.norm(z, axis=-1, keepdims=True)


def nearest_contrast(z, predicted, support, temperature):
    """Equation 3 for z as the view whose neighbours are positives, averaged over images."""
    total = 0.0
    neighbours = [support[np.argmax(support @ unit(row))] for row in z]
    for i, neighbour in enumerate(neighbours):
        everything = sum(math.exp(neighbour @ p / temperature) for p in unit(predicted))
        total += -math.log(math.exp(neighbour @ unit(predicted[i]) / temperature) / everything)
    return total / len(z)


def test_equations_2_to_4(rng):
    z, matrix = rng.normal(size=(2, 5, 4)), rng.normal(size=(4, 4))
    module = PredictorAndSupport(dim=4, hidden=8, size=7)
    old = module.support.vectors.numpy().astype(np.float64)
    module.predictor = nn.Sequential(nn.Linear(4, 4, bias=False))
    with torch.no_grad():
        module.predictor[0].weight.copy_(torch.tensor(matrix))
    loss = NNCLR(temperature=0.3)(_batch(z, module))
    predicted = z @ matrix.T
    first = nearest_contrast(z[0], predicted[1], old, 0.3)
    second = nearest_contrast(z[1], predicted[0], old, 0.3)
    assert loss.parts["first"].item() == pytest.approx(first, rel=1e-4)
    assert loss.parts["second"].item() == pytest.approx(second, rel=1e-4)


def test_it_remembers_the_first_view(rng):
    z = rng.normal(size=(2, 3, 4))
    module = NNCLR(support=8).build(SIZES)
    assert isinstance(module, PredictorAndSupport)
    NNCLR(support=8)(_batch(z, module))
    assert np.allclose(module.support.vectors[:3].numpy(), unit(z[0]), atol=1e-6)
    assert module.support.cursor.item() == 3


@pytest.mark.parametrize("arguments", [{"temperature": 0.0}, {"support": 0}, {"hidden": -1}])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(InvalidInput, match=next(iter(arguments))):
        NNCLR(**arguments)


def _batch(z, module):
    tensor = torch.tensor(z, dtype=torch.float32)
    return Batch(tensor, tensor, module=module)
