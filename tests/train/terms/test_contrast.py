"""Similarities and distances of pairs, one pair at a time."""

import math

import numpy as np
import pytest
import torch

from embedkit.train.terms import (
    exact_product,
    image_pairs,
    log_mean_exp,
    positive_first,
    squared_distances,
)


def test_positives_and_negatives_are_apart(rng):
    z = rng.normal(size=(2, 3, 4))
    pairs = image_pairs(torch.tensor(z), temperature=0.5)
    unit = z / np.linalg.norm(z, axis=2, keepdims=True)
    flat = unit.reshape(6, 4)
    for row in range(6):
        image = row % 3
        positive = flat[row] @ flat[(row + 3) % 6] / 0.5
        assert pairs.positives[row].item() == pytest.approx(positive, rel=1e-5)
        for column in range(6):
            value = pairs.negatives[row, column].item()
            if column % 3 == image:
                assert value == -math.inf
            else:
                assert value == pytest.approx(
                    flat[row] @ flat[column] / 0.5, rel=1e-4, abs=1e-6
                )


def test_the_positive_is_the_first_logit():
    queries, keys = torch.eye(3)[:2], torch.eye(3)[[0, 0]]
    logits = positive_first(queries, keys, torch.eye(3), temperature=0.5)
    assert logits.tolist() == [[2, 2, 0, 0], [0, 0, 2, 0]]


def test_distances_of_all_ordered_pairs(rng):
    z = rng.normal(size=(4, 3))
    expected = [
        np.sum((a - b) ** 2) for i, a in enumerate(z) for k, b in enumerate(z) if i != k
    ]
    assert np.allclose(squared_distances(torch.tensor(z)).numpy(), expected, rtol=1e-4)


def test_log_mean_exp_does_not_overflow():
    assert log_mean_exp(torch.tensor([[1000.0, 1000.0]])).item() == pytest.approx(1000)
    values = torch.tensor([0.0, math.log(3)])
    assert log_mean_exp(values).item() == pytest.approx(math.log(2))


def test_products_stay_exact_under_autocast(rng):
    z = torch.tensor(rng.normal(size=(4, 64)), dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        product = exact_product(z, z)
    assert product.dtype == torch.float32
    assert torch.allclose(product, z @ z.T, rtol=1e-6)
