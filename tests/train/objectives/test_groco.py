"""GroCo against explicit permutation matrices of the sorting network."""

import math

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch
from embedkit.train.objectives.groco import GroCo


def permutation(values, steepness, replacement):
    """Product of the relaxed odd-even layers, and the values sorted by it."""
    n = len(values)
    total = np.eye(n)
    for layer in range(n):
        matrix = np.eye(n)
        for low in range(layer % 2, n - 1, 2):
            x = values[low + 1] - values[low]
            x = x / (abs(x) ** replacement) if x else 0.0
            stays = math.atan(steepness * x) / math.pi + 0.5
            matrix[low : low + 2, low : low + 2] = [[stays, 1 - stays], [1 - stays, stays]]
        values = matrix @ values
        total = matrix @ total
    return total, values


def group_order(z, nearest, steepness, replacement):
    """Binary cross entropy of each value's probability to end at a positive rank."""
    v, b, _ = z.shape
    z = z / np.linalg.norm(z, axis=2, keepdims=True)
    costs = []
    for view in range(v):
        for i in range(b):
            negatives = sorted(z[view, i] @ z[view, k] for k in range(b) if k != i)[-nearest:]
            positives = sorted(z[view, i] @ z[o, i] for o in range(v) if o != view)
            matrix, _ = permutation(np.array(negatives + positives), steepness, replacement)
            above = matrix[len(negatives) :].sum(axis=0)
            for rank, probability in enumerate(above):
                is_positive = rank >= len(negatives)
                costs.append(-math.log(probability if is_positive else 1 - probability))
    return np.mean(costs)


@pytest.mark.parametrize(("views", "images", "nearest"), [(2, 2, 10), (2, 7, 4), (3, 5, 3)])
def test_the_network_as_matrices(rng, views, images, nearest):
    z = rng.normal(size=(views, images, 4))
    loss = GroCo(views, nearest, steepness=2.0)(_batch(z)).total
    assert loss.item() == pytest.approx(group_order(z, nearest, 2.0, 0.25), rel=1e-4)


def test_a_steep_network_sorts(rng):
    values = rng.normal(size=6)
    matrix, ordered = permutation(values, 1e6, 0.0)
    assert np.allclose(ordered, np.sort(values), atol=1e-4)
    assert np.allclose(matrix.sum(axis=0), 1)


def test_the_right_order_costs_less_than_the_wrong_one():
    eye = np.eye(6)
    right = GroCo(steepness=10)(_batch(np.stack([eye, eye]))).total
    wrong = GroCo(steepness=10)(_batch(np.stack([eye, -eye]))).total
    assert right.item() < wrong.item() / 3


def test_a_view_learns_as_the_compared_one_alone(rng):
    z = torch.tensor(rng.normal(size=(2, 5, 4)), dtype=torch.float32)
    free, held = z.clone().requires_grad_(), z.clone().requires_grad_()
    GroCo(stop_gradient=False)(Batch(free, free)).total.backward()
    GroCo()(Batch(held, held)).total.backward()
    assert free.grad is not None
    assert held.grad is not None
    assert not torch.allclose(free.grad, held.grad)


def test_projections_that_are_not_finite_give_nan_and_no_error(rng):
    z = rng.normal(size=(2, 5, 4))
    z[1, 2] = np.nan
    assert GroCo()(_batch(z)).total.isnan()


@pytest.mark.parametrize(
    "arguments", [{"views": 1}, {"nearest": 0}, {"steepness": 0.0}, {"replacement": 1.0}]
)
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(InvalidInput, match=next(iter(arguments))):
        GroCo(**arguments)


def _batch(z):
    tensor = torch.tensor(z, dtype=torch.float32)
    return Batch(tensor, tensor)
