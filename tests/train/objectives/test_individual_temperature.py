"""iSogCLR against algorithm 1 of the paper, written with loops; its gradient by differences."""

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch, Sizes
from embedkit.train.objectives.individual_temperature import (
    Individuals,
    IndividualTemperature,
)

INDICES = [6, 1, 4]


def unit(z):
    return z / np.linalg.norm(z, axis=-1, keepdims=True)


def excesses(z):
    """Cosine of each negative minus that of the positive, one row per view and image."""
    z = unit(z)
    v, b, _ = z.shape
    return [
        [
            z[view, i] @ z[other, k] - z[view, i] @ z[1 - view, i]
            for other in range(v)
            for k in range(b)
            if k != i
        ]
        for view in range(v)
        for i in range(b)
    ]


def robust(z, temperatures):
    """tau log mean exp(h / tau), averaged over views and images."""
    rows = excesses(z)
    taus = [*temperatures, *temperatures]
    return np.mean(
        [t * np.log(np.mean(np.exp(np.array(h) / t))) for h, t in zip(rows, taus, strict=True)]
    )


def test_first_visit_is_the_robust_loss(rng):
    z = rng.normal(size=(2, 3, 4))
    module = _known([0.3, 0.5, 0.8])
    loss = IndividualTemperature(radius=0.4)(_batch(z, module))
    assert loss.parts["contrast"].item() == pytest.approx(robust(z, [0.3, 0.5, 0.8]), rel=1e-4)
    assert loss.parts["radius"].item() == pytest.approx(0.4 * np.mean([0.3, 0.5, 0.8]))


def test_gradient_is_that_of_the_robust_loss(rng):
    z = rng.normal(size=(2, 3, 4))
    batch = _batch(z, _known([0.3, 0.5, 0.8]))
    IndividualTemperature()(batch).total.backward()
    step = np.zeros_like(z)
    step[0, 1, 2] = 1e-5
    slope = robust(z + step, [0.3, 0.5, 0.8]) - robust(z - step, [0.3, 0.5, 0.8])
    assert batch.projections.grad is not None
    assert batch.projections.grad[0, 1, 2].item() == pytest.approx(slope / 2e-5, rel=1e-3)


def test_algorithm_1_over_two_visits(rng):
    objective = IndividualTemperature(
        radius=0.4, rate=0.1, mean_rate=0.7, slope_rate=0.6, lowest=0.01
    )
    module = _known([0.3, 0.5, 0.8])
    tau, mean, slope = np.array([0.3, 0.5, 0.8]), np.zeros(3), np.zeros(3)
    for _ in range(2):
        z = rng.normal(size=(2, 3, 4))
        objective(_batch(z, module))
        rows = np.array(excesses(z)).reshape(2, 3, -1)
        powers = np.exp(rows / tau[:, None])
        fresh = powers.mean(axis=2)
        moving = fresh if not mean.any() else 0.3 * mean + 0.7 * fresh
        mean = moving.mean(axis=0)
        expected = (powers * rows / tau[:, None]).mean(axis=2) / moving
        derivative = np.log(mean) + 0.4 - expected.mean(axis=0)
        slope = 0.4 * slope + 0.6 * derivative
        tau = np.clip(tau - 0.1 * slope, 0.01, 1.0)
    assert np.allclose(module.mean[INDICES].numpy(), mean, rtol=1e-4)
    assert np.allclose(module.temperature[INDICES].numpy(), tau, rtol=1e-4)
    assert module.mean[[0, 2, 3, 5, 7]].abs().sum() == 0


def test_an_index_beyond_the_known_images_is_refused(rng):
    with pytest.raises(InvalidInput, match="below the 5 known images"):
        IndividualTemperature()(_batch(rng.normal(size=(2, 3, 4)), Individuals(5, 0.2)))


def test_all_images_start_alike():
    module = IndividualTemperature(start=0.4).build(Sizes(dim=4, feature_dim=4, images=8))
    assert isinstance(module, Individuals)
    assert torch.equal(module.temperature, torch.full((8,), 0.4))


@pytest.mark.parametrize(
    "arguments", [{"lowest": 0.3}, {"radius": -1.0}, {"rate": -1.0}, {"mean_rate": 0.0}]
)
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(InvalidInput, match="expected"):
        IndividualTemperature(**arguments)


def _known(temperatures):
    module = Individuals(8, 0.2)
    module.temperature[INDICES] = torch.tensor(temperatures)
    return module


def _batch(z, module):
    tensor = torch.tensor(z, dtype=torch.float32, requires_grad=True)
    return Batch(tensor, tensor, module=module, indices=torch.tensor(INDICES))
