"""Barlow Twins against equations 1 and 2 of the paper, written with loops."""

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch
from embedkit.train.objectives.barlow_twins import BarlowTwins


def parts(z):
    """The two sums of equation 1, of correlations by equation 2, without the weight."""
    centred = z - z.mean(axis=1, keepdims=True)
    d = z.shape[2]
    on = off = 0.0
    for i in range(d):
        for j in range(d):
            first, second = centred[0, :, i], centred[1, :, j]
            c = np.sum(first * second) / np.sqrt(np.sum(first**2)) / np.sqrt(np.sum(second**2))
            if i == j:
                on += (1 - c) ** 2
            else:
                off += c**2
    return on, off


@pytest.mark.parametrize("images", [3, 12])
def test_equations_1_and_2(rng, images):
    z = rng.normal(size=(2, images, 4))
    on, off = parts(z)
    loss = BarlowTwins(redundancy=0.3)(_batch(z))
    # The batch norm of the authors adds 1e-5 to each variance.
    assert loss.parts["invariance"].item() == pytest.approx(on, rel=2e-4)
    assert loss.parts["redundancy"].item() == pytest.approx(0.3 * off, rel=2e-4)


def test_scale_and_offset_of_a_dimension_do_not_matter(rng):
    z = rng.normal(size=(2, 16, 4))
    moved = z * rng.uniform(1, 5, size=4) + rng.normal(size=4)
    objective = BarlowTwins()
    assert objective(_batch(z)).total.item() == pytest.approx(
        objective(_batch(moved)).total.item(), rel=1e-3
    )


def test_equal_views_of_independent_dimensions_cost_nothing():
    z = np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    loss = BarlowTwins(redundancy=1.0)(_batch(np.stack([z, z]))).total
    assert loss.item() == pytest.approx(0, abs=1e-6)


def test_the_weight_must_not_be_negative():
    with pytest.raises(InvalidInput, match="redundancy of at least 0"):
        BarlowTwins(redundancy=-1.0)


def _batch(z):
    tensor = torch.tensor(z, dtype=torch.float32)
    return Batch(tensor, tensor)
