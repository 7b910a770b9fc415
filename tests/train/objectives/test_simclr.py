"""SimCLR against equation 1 of the paper, written with loops."""

import math

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch
from embedkit.train.objectives.simclr import SimCLR


def nt_xent(z, temperature):
    """Equation 1, averaged over all positive pairs in both directions."""
    v, b, _ = z.shape
    flat = [z[i, j] / np.linalg.norm(z[i, j]) for i in range(v) for j in range(b)]
    total = 0.0
    for i in range(2 * b):
        j = (i + b) % (2 * b)
        others = sum(math.exp(flat[i] @ flat[k] / temperature) for k in range(2 * b) if k != i)
        total += -math.log(math.exp(flat[i] @ flat[j] / temperature) / others)
    return total / (2 * b)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("images", [2, 3, 7])
def test_equation_1(rng, images, temperature):
    z = rng.normal(size=(2, images, 5))
    loss = SimCLR(temperature)(_batch(z)).total
    assert loss.item() == pytest.approx(nt_xent(z, temperature), rel=1e-5)


def test_unrelated_orthogonal_views_give_the_log_of_all_others():
    z = np.eye(8).reshape(2, 4, 8)
    loss = SimCLR(temperature=0.5)(_batch(z)).total
    assert loss.item() == pytest.approx(math.log(2 * 4 - 1), rel=1e-6)


def test_length_of_projections_does_not_matter(rng):
    z = rng.normal(size=(2, 6, 5))
    scaled = z * rng.uniform(0.1, 10.0, size=(2, 6, 1))
    assert SimCLR()(_batch(z)).total.item() == pytest.approx(
        SimCLR()(_batch(scaled)).total.item(), rel=1e-5
    )


def test_matching_views_cost_less_than_swapped_ones(rng):
    first = rng.normal(size=(6, 16))
    matching = SimCLR()(_batch(np.stack([first, first]))).total
    swapped = SimCLR()(_batch(np.stack([first, np.roll(first, 1, axis=0)]))).total
    assert matching.item() < swapped.item() - 1


def test_low_temperature_stays_finite():
    z = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]], [[-1.0, 0.0], [1.0, 0.0]]], requires_grad=True)
    loss = SimCLR(temperature=1e-3)(Batch(z, z)).total
    loss.backward()
    assert torch.isfinite(loss)
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()


def test_temperature_must_be_positive():
    with pytest.raises(InvalidInput, match="temperature above 0"):
        SimCLR(temperature=0.0)


def _batch(z):
    tensor = torch.tensor(z, dtype=torch.float32)
    return Batch(tensor, tensor)
