"""Second moments of a batch, against numpy's."""

import numpy as np
import torch

from embedkit.train.terms import covariance, cross_correlation, off_diagonal, standardised


def test_covariance_is_the_sample_covariance(rng):
    z = rng.normal(size=(7, 3)) + 5
    assert np.allclose(covariance(torch.tensor(z)).numpy(), np.cov(z, rowvar=False), rtol=1e-4)


def test_standardised_dimensions_have_mean_0_and_variance_1(rng):
    z = standardised(torch.tensor(rng.normal(3, 2, size=(50, 3))))
    assert np.allclose(z.mean(dim=0), 0, atol=1e-5)
    assert np.allclose(z.square().mean(dim=0), 1, atol=1e-4)


def test_cross_correlation_is_that_of_numpy(rng):
    first, second = rng.normal(size=(2, 40, 3))
    ours = cross_correlation(
        standardised(torch.tensor(first)), standardised(torch.tensor(second))
    )
    expected = np.corrcoef(first, second, rowvar=False)[:3, 3:]
    assert np.allclose(ours.numpy(), expected, atol=1e-4)


def test_off_diagonal_keeps_the_rest():
    matrix = torch.arange(4.0).reshape(2, 2)
    assert off_diagonal(matrix).tolist() == [[0, 1], [2, 0]]
