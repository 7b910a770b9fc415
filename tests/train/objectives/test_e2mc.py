"""E2MC: m-spacing entropy and covariance in the cube, written with loops."""

import math

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch
from embedkit.train.objectives.e2mc import E2MC
from embedkit.train.objectives.vicreg import VICReg


def squashed(z, squash):
    if squash == "sigmoid":
        return 1 / (1 + np.exp(-z))
    return np.vectorize(lambda x: 0.5 * (1 + math.erf(x / math.sqrt(2))))(z)


def entropy(cube):
    """Vasicek's m-spacing estimate of each dimension, averaged."""
    b, d = cube.shape
    m = round(math.sqrt(b))
    total = 0.0
    for j in range(d):
        values = sorted(cube[:, j])
        gaps = [(values[i + m] - values[i]) * (b + 1) / m for i in range(b - m)]
        total += sum(math.log(gap) for gap in gaps) / len(gaps)
    return total / d


def dependence(cube):
    covariance = np.cov(cube, rowvar=False)
    d = len(covariance)
    return sum(covariance[i, j] ** 2 for i in range(d) for j in range(d) if i != j) / d


@pytest.mark.parametrize(("images", "squash"), [(3, "sigmoid"), (17, "gaussian")])
def test_both_criteria(rng, images, squash):
    z = rng.normal(size=(2, images, 4))
    loss = E2MC(entropy=2.0, covariance=5.0, squash=squash)(_batch(z)).parts
    cubes = [squashed(view, squash) for view in z]
    expected = -2.0 * (entropy(cubes[0]) + entropy(cubes[1])) / 2
    assert loss["entropy"].item() == pytest.approx(expected, rel=1e-4)
    expected = 5.0 * (dependence(cubes[0]) + dependence(cubes[1])) / 2
    assert loss["dependence"].item() == pytest.approx(expected, rel=1e-4)


def test_without_them_it_is_vicreg(rng):
    z = rng.normal(size=(2, 6, 4))
    plain = E2MC(entropy=0.0, covariance=0.0)(_batch(z)).total
    assert plain.item() == pytest.approx(VICReg()(_batch(z)).total.item(), rel=1e-5)


def test_a_uniform_cube_has_the_largest_entropy(rng):
    uniform = rng.uniform(0.001, 0.999, size=(2, 400, 1))
    costs = []
    for cube in (uniform, uniform**3):
        z = np.log(cube / (1 - cube))
        costs.append(E2MC(entropy=1.0)(_batch(z)).parts["entropy"].item())
    assert abs(costs[0]) < 0.1
    assert costs[1] > costs[0] + 0.5


@pytest.mark.parametrize("arguments", [{"entropy": -1.0}, {"covariance": -1.0}, {"base": -1.0}])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(InvalidInput, match="weights of at least 0"):
        E2MC(**arguments)


def _batch(z):
    tensor = torch.tensor(z, dtype=torch.float32)
    return Batch(tensor, tensor)
