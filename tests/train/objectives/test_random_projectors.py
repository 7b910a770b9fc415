"""Random data projectors: the batch-wise loss, against fixed targets."""

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch, Sizes
from embedkit.train.objectives.random_projectors import RandomProjectors

SIZES = Sizes(dim=5, feature_dim=5, image_shape=(8, 8, 1))
OBJECTIVE = RandomProjectors(projectors=2, dim=6, others=0.1)


def test_the_loss_over_images(rng):
    batch = _batch(rng)
    features = batch.features[0].double().numpy()
    own = others = 0.0
    for network, predictor in zip(batch.module.random, batch.module.predictors, strict=True):
        target = network(batch.images).detach().double().numpy()
        target = (target - target.mean(axis=0)) / np.sqrt(target.var(axis=0) + 1e-5)
        weight, bias = (p.detach().double().numpy() for p in predictor.parameters())
        predicted = features @ weight.T + bias
        for i in range(4):
            for j in range(4):
                norms = np.linalg.norm(predicted[i]) * np.linalg.norm(target[j])
                cosine = predicted[i] @ target[j] / norms
                own += (1 - cosine) ** 2 / 4 / 2 if i == j else 0
                others += cosine**2 / 4 / 2 if i != j else 0
    parts = OBJECTIVE(batch).parts
    assert parts["own"].item() == pytest.approx(own, rel=1e-3)
    assert parts["others"].item() == pytest.approx(0.1 * others, rel=1e-3)


def test_the_random_networks_are_never_trained_and_differ(rng):
    batch = _batch(rng)
    OBJECTIVE(batch).total.backward()
    assert not any(p.requires_grad for p in batch.module.random.parameters())
    first, second = (network(batch.images) for network in batch.module.random)
    assert not torch.allclose(first, second, atol=0.01)


@pytest.mark.parametrize("arguments", [{"projectors": 0}, {"dim": 0}, {"others": -1.0}])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(InvalidInput, match="at least"):
        RandomProjectors(**arguments)


def _batch(rng):
    torch.manual_seed(0)
    x = torch.tensor(rng.normal(size=(1, 4, 5)), dtype=torch.float32)
    images = torch.tensor(rng.random(size=(4, 1, 8, 8)), dtype=torch.float32)
    return Batch(x, x, module=OBJECTIVE.build(SIZES), images=images)
