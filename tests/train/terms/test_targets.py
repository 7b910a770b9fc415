"""Cross entropy with a distribution."""

import numpy as np
import pytest
import torch

from embedkit.train.terms import soft_cross_entropy


def test_against_the_definition(rng):
    logits, targets = rng.normal(size=(5, 3)), rng.dirichlet(np.ones(3), size=5)
    expected = [
        -sum(t * (x - np.log(np.exp(row).sum())) for t, x in zip(target, row, strict=True))
        for row, target in zip(logits, targets, strict=True)
    ]
    found = soft_cross_entropy(torch.tensor(logits), torch.tensor(targets))
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_targets_get_no_gradient():
    logits, targets = (torch.full((1, 2), 0.5, requires_grad=True) for _ in range(2))
    soft_cross_entropy(logits, targets).sum().backward()
    assert logits.grad is not None
    assert targets.grad is None
