"""W-MSE against section 3 of the paper, in double precision."""

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch
from embedkit.train.objectives.whitening import Whitening


def whitened(z, shrinkage):
    """Inverse Cholesky triangle of the shrunk covariance, applied row by row."""
    covariance = np.cov(z, rowvar=False)
    covariance = (1 - shrinkage) * covariance + shrinkage * np.eye(z.shape[1])
    inverse = np.linalg.inv(np.linalg.cholesky(covariance))
    return np.array([inverse @ (row - z.mean(axis=0)) for row in z])


def mean_distance(z, shrinkage):
    first, second = (whitened(view, shrinkage) for view in z)
    total = 0.0
    for a, b in zip(first, second, strict=True):
        total += np.sum((a / np.linalg.norm(a) - b / np.linalg.norm(b)) ** 2)
    return total / len(first)


@pytest.mark.parametrize("images", [3, 12])
def test_section_3(rng, images):
    z = rng.normal(size=(2, images, 4))
    loss = Whitening(shrinkage=0.01)(_batch(z)).total
    assert loss.item() == pytest.approx(mean_distance(z, 0.01), rel=1e-3)


def test_slices_are_whitened_alone(rng):
    z = rng.normal(size=(2, 13, 3))
    loss = Whitening(slice_size=6, passes=2, shrinkage=0.01)(_batch(z)).total
    generator = torch.Generator().manual_seed(3)
    costs = []
    for _ in range(2):
        order = torch.randperm(13, generator=generator).numpy()
        costs += [mean_distance(z[:, order[s : s + 6]], 0.01) for s in (0, 6)]
    assert loss.item() == pytest.approx(np.mean(costs), rel=1e-3)


def test_a_linear_map_of_all_projections_does_not_matter(rng):
    z = rng.normal(size=(1, 30, 4)) + 0.3 * rng.normal(size=(2, 30, 4))
    moved = z @ np.tril(rng.uniform(0.5, 2.0, size=(4, 4))).T + rng.normal(size=4)
    objective = Whitening(shrinkage=1e-6)
    assert objective(_batch(z)).total.item() == pytest.approx(
        objective(_batch(moved)).total.item(), rel=1e-3
    )


@pytest.mark.parametrize("std", [10, 100, 1e4])
def test_projections_of_a_large_scale_cost_what_their_shape_does(rng, std):
    """There are fewer images than dimensions: what is left over is the identity's share."""
    z = rng.normal(size=(1, 64, 128)) + 0.3 * rng.normal(size=(2, 64, 128))
    large = Whitening()(_batch(std * z)).total.item()
    # Without the identity's growth 64 images would have no covariance, or an arbitrary one.
    at_the_limit = Whitening()(_batch((10 / z.var()) ** 0.5 * z)).total.item()
    assert large == pytest.approx(at_the_limit, rel=0.02)


def test_a_batch_without_a_covariance_gives_nan_and_no_error(rng):
    z = rng.normal(size=(2, 12, 4))
    z[1, 2] = np.nan
    assert Whitening()(_batch(z)).total.isnan()


@pytest.mark.parametrize("arguments", [{"slice_size": 1}, {"passes": 0}, {"shrinkage": 0.0}])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(InvalidInput, match=next(iter(arguments))):
        Whitening(**arguments)


def _batch(z):
    tensor = torch.tensor(z, dtype=torch.float32)
    return Batch(tensor, tensor, generator=torch.Generator().manual_seed(3))
