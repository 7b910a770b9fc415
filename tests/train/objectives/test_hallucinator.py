"""The hallucinated pairs, written with loops."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch, Sizes
from embedkit.train.objectives.hallucinator import Hallucinator
from embedkit.train.objectives.simclr import SimCLR


def unit(z):
    return z / np.linalg.norm(z, axis=-1, keepdims=True)


def test_hallucinated_pairs(rng):
    z = rng.normal(size=(2, 4, 3))
    module = Hallucinator().build(Sizes(dim=3, feature_dim=3))
    assert isinstance(module, nn.Sequential)
    weights = [p.detach().numpy().astype(np.float64) for p in module.parameters()]
    loss = Hallucinator(temperature=0.4, weight=0.7, extrapolation=0.9)(_batch(z, module))
    share = 0.9 * torch.rand(2, 4, 1, generator=torch.Generator().manual_seed(3)).numpy()
    u, total = unit(z), 0.0
    for view in range(2):
        for i in range(4):
            away = u[view, i] + share[view, i] * (u[view, i] - u[1 - view, i])
            hidden = np.maximum(weights[0] @ away + weights[1], 0)
            made = unit(weights[2] @ hidden + weights[3])
            positive = math.exp(made @ u[1 - view, i] / 0.4)
            others = [u[o, k] for o in range(2) for k in range(4) if k != i]
            negatives = sum(math.exp(made @ other / 0.4) for other in others)
            total += -math.log(positive / (positive + negatives))
    assert loss.parts["hallucinated"].item() == pytest.approx(0.7 * total / 8, rel=1e-4)


def test_the_other_part_is_simclr(rng):
    z = rng.normal(size=(2, 4, 3))
    module = Hallucinator().build(Sizes(dim=3, feature_dim=3))
    loss = Hallucinator(temperature=0.3)(_batch(z, module))
    plain = SimCLR(0.3)(_batch(z, None)).total
    assert loss.parts["views"].item() == pytest.approx(plain.item(), rel=1e-5)


@pytest.mark.parametrize(
    "arguments", [{"temperature": 0.0}, {"weight": -1.0}, {"extrapolation": -1.0}]
)
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(InvalidInput, match=next(iter(arguments))):
        Hallucinator(**arguments)


def _batch(z, module):
    tensor = torch.tensor(z, dtype=torch.float32)
    return Batch(tensor, tensor, module=module, generator=torch.Generator().manual_seed(3))
