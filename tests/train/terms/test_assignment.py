"""Sinkhorn-Knopp and k-means against their definitions."""

import numpy as np
import pytest
import torch

from embedkit.train.terms import k_means, sinkhorn


def test_sinkhorn_scales_columns_and_rows_in_turn(rng):
    logits = 3 * rng.normal(size=(6, 4))
    q = np.exp(logits)
    for _ in range(3):
        for column in range(4):
            q[:, column] /= q[:, column].sum()
        for row in range(6):
            q[row] /= q[row].sum()
    found = sinkhorn(torch.tensor(logits), 3).numpy()
    np.testing.assert_allclose(found, q, rtol=1e-4)


def test_sinkhorn_fills_clusters_evenly(rng):
    found = sinkhorn(torch.tensor(5 * rng.normal(size=(40, 4))), 300)
    np.testing.assert_allclose(found.sum(dim=0).numpy(), 10, rtol=1e-4)
    np.testing.assert_allclose(found.sum(dim=1).numpy(), 1, rtol=1e-5)


def test_sinkhorn_of_scores_that_exp_could_not_hold():
    found = sinkhorn(torch.tensor([[2000.0, 0.0], [1000.0, 0.0]]), 50)
    assert torch.isfinite(found).all()
    assert found.argmax(dim=1).tolist() == [0, 1]


def test_k_means_ends_where_nothing_moves(rng):
    x = rng.normal(size=(60, 3))
    labels = k_means(torch.tensor(x), 5, iterations=100, seed=0).numpy()
    centres = np.stack([x[labels == c].mean(axis=0) for c in range(5)])
    nearest = [int(np.argmin(((row - centres) ** 2).sum(axis=1))) for row in x]
    assert labels.tolist() == nearest


def test_k_means_depends_on_its_seed_alone(rng):
    x = torch.tensor(rng.normal(size=(50, 3)))
    first, again, other = (k_means(x, 8, iterations=3, seed=s) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("clusters", [1, 4])
def test_k_means_of_equal_vectors(clusters):
    labels = k_means(torch.ones(4, 2), clusters, iterations=5, seed=0)
    assert labels.tolist() == [0, 0, 0, 0]
