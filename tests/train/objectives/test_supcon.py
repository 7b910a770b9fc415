"""SupCon against equation 2 of the paper (L_out), written with loops."""

import math

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch
from embedkit.train.objectives.simclr import SimCLR
from embedkit.train.objectives.supcon import SupCon


def l_out(z, labels, temperature):
    """Equation 2, with the sum over anchors replaced by their mean."""
    flat = z.reshape(-1, z.shape[-1])
    flat = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    twice = [*labels, *labels]
    total = 0.0
    for i in range(len(flat)):
        everyone = [a for a in range(len(flat)) if a != i]
        positives = [p for p in everyone if twice[p] == twice[i]]
        below = sum(math.exp(flat[i] @ flat[a] / temperature) for a in everyone)
        for p in positives:
            above = math.exp(flat[i] @ flat[p] / temperature)
            total += -math.log(above / below) / len(positives)
    return total / len(flat)


@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 2], [0, 0, 0, 0, 0], [4, 3, 2, 1, 0]])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_equation_2(rng, labels, temperature):
    z = rng.normal(size=(2, 5, 4))
    loss = SupCon(temperature)(_batch(z, labels)).total
    assert loss.item() == pytest.approx(l_out(z, labels, temperature), rel=1e-5)


def test_distinct_labels_are_simclr(rng):
    z = rng.normal(size=(2, 6, 4))
    supervised = SupCon(temperature=0.3)(_batch(z, range(6))).total
    free = SimCLR(temperature=0.3)(_batch(z, range(6))).total
    assert supervised.item() == pytest.approx(free.item(), rel=1e-6)


def test_labels_count_by_equality_alone(rng):
    z = rng.normal(size=(2, 4, 3))
    assert torch.equal(
        SupCon()(_batch(z, [0, 1, 1, 0])).total, SupCon()(_batch(z, [9, 2, 2, 9])).total
    )


def test_without_labels_it_says_what_is_missing(rng):
    z = torch.tensor(rng.normal(size=(2, 4, 3)), dtype=torch.float32)
    with pytest.raises(InvalidInput, match="expected a batch with labels"):
        SupCon()(Batch(z, z))


def test_temperature_must_be_positive():
    with pytest.raises(InvalidInput, match="temperature above 0"):
        SupCon(temperature=-1.0)


def _batch(z, labels):
    tensor = torch.tensor(z, dtype=torch.float32)
    return Batch(tensor, tensor, labels=torch.tensor(list(labels)))
