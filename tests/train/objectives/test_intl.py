"""INTL: iterative normalisation and trace loss, through eigenvalues in double precision."""

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch
from embedkit.train.objectives.intl import INTL


def transformed(z, iterations):
    """Newton's iteration on each eigenvalue alone: the matrix has the same eigenvectors."""
    values, vectors = np.linalg.eigh(np.cov(z, rowvar=False))
    scaled, factors = values / values.sum(), np.ones_like(values)
    for _ in range(iterations):
        factors = (3 * factors - factors**3 * scaled) / 2
    root = vectors @ np.diag(factors / np.sqrt(values.sum())) @ vectors.T
    return (z - z.mean(axis=0)) @ root


@pytest.mark.parametrize(("images", "iterations"), [(2, 4), (12, 1), (12, 5)])
def test_transformation_and_both_losses(rng, images, iterations):
    z = rng.normal(size=(2, images, 4)) * [1.0, 2.0, 0.3, 0.1]
    loss = INTL(iterations, trace=0.3)(_batch(z))
    first, second = (transformed(view, iterations) for view in z)
    distance = trace = 0.0
    for a, b in zip(first, second, strict=True):
        distance += np.sum((a / np.linalg.norm(a) - b / np.linalg.norm(b)) ** 2) / images
    for view in (first, second):
        trace += sum((np.var(view[:, j], ddof=1) - 1) ** 2 for j in range(4))
    assert loss.parts["distance"].item() == pytest.approx(distance, rel=1e-3)
    assert loss.parts["trace"].item() == pytest.approx(0.3 * trace, rel=1e-3)


def test_many_iterations_whiten(rng):
    z = rng.normal(size=(2, 40, 3)) * [1.0, 1.5, 0.7]
    loss = INTL(iterations=9)(_batch(z))
    assert loss.parts["trace"].item() == pytest.approx(0, abs=1e-4)


def test_equal_projections_stay_finite():
    z = torch.ones(2, 4, 3, requires_grad=True)
    loss = INTL()(Batch(z, z)).total
    loss.backward()
    assert torch.isfinite(loss)
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()


@pytest.mark.parametrize("arguments", [{"iterations": 0}, {"trace": -1.0}])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(InvalidInput, match=next(iter(arguments))):
        INTL(**arguments)


def _batch(z):
    tensor = torch.tensor(z, dtype=torch.float32)
    return Batch(tensor, tensor)
