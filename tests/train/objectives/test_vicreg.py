"""VICReg against equations 1 to 6 of the paper, written with loops."""

import math

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch
from embedkit.train.objectives.vicreg import VICReg

EPSILON = 1e-4


def variance(z, gamma):
    """Equations 1 and 2."""
    n, d = z.shape
    total = 0.0
    for j in range(d):
        mean = sum(z[i, j] for i in range(n)) / n
        spread = sum((z[i, j] - mean) ** 2 for i in range(n)) / (n - 1)
        total += max(0.0, gamma - math.sqrt(spread + EPSILON))
    return total / d


def covariance(z):
    """Equations 3 and 4."""
    n, d = z.shape
    mean = sum(z[i] for i in range(n)) / n
    matrix = sum(np.outer(z[i] - mean, z[i] - mean) for i in range(n)) / (n - 1)
    return sum(matrix[i, j] ** 2 for i in range(d) for j in range(d) if i != j) / d


def invariance(first, second):
    """Equation 5, over d: the authors' code takes the mean over dimensions."""
    n, d = first.shape
    return sum(np.sum((first[i] - second[i]) ** 2) for i in range(n)) / n / d


@pytest.mark.parametrize("spread", [1.0, 3.0])
@pytest.mark.parametrize("images", [2, 5])
def test_equations_1_to_6(rng, images, spread):
    z = rng.normal(size=(2, images, 4))
    loss = VICReg(invariance=3.0, variance=5.0, covariance=7.0, spread=spread)(_batch(z))
    # Equation 6 adds both variances where the authors' code halves the sum.
    expected = {
        "invariance": 3.0 * invariance(z[0], z[1]),
        "variance": 5.0 * (variance(z[0], spread) + variance(z[1], spread)) / 2,
        "covariance": 7.0 * (covariance(z[0]) + covariance(z[1])),
    }
    assert {k: v.item() for k, v in loss.parts.items()} == pytest.approx(expected, rel=1e-4)
    assert loss.total.item() == pytest.approx(sum(expected.values()), rel=1e-5)


def test_equal_views_have_no_invariance_term(rng):
    z = rng.normal(size=(6, 4))
    assert VICReg()(_batch(np.stack([z, z]))).parts["invariance"].item() == 0


def test_collapsed_projections_pay_the_whole_hinge():
    loss = VICReg(variance=1.0, spread=1.0)(_batch(np.ones((2, 4, 3))))
    assert loss.parts["variance"].item() == pytest.approx(1 - math.sqrt(EPSILON), rel=1e-5)
    assert loss.parts["covariance"].item() == 0


def test_swapping_views_changes_nothing(rng):
    z = rng.normal(size=(2, 5, 4))
    assert VICReg()(_batch(z)).total.item() == pytest.approx(
        VICReg()(_batch(z[::-1].copy())).total.item(), rel=1e-6
    )


def test_constant_dimensions_have_a_finite_gradient():
    z = torch.ones(2, 4, 3, requires_grad=True)
    VICReg()(Batch(z, z)).total.backward()
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()


def test_negative_weights_are_refused():
    with pytest.raises(InvalidInput, match="at least 0"):
        VICReg(covariance=-1.0)


def _batch(z):
    tensor = torch.tensor(z, dtype=torch.float32)
    return Batch(tensor, tensor)
