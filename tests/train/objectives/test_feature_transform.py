"""Feature transformation: extrapolation and interpolation, written with loops."""

import math

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch, Sizes
from embedkit.train.objectives.feature_transform import FeatureTransform
from embedkit.train.objectives.moco import MoCo

SIZES = Sizes(dim=3, feature_dim=9)


def unit(z):
    return z / np.linalg.norm(z, axis=-1, keepdims=True)


def queue_of(objective):
    torch.manual_seed(7)
    return objective.build(SIZES)


def test_both_transformations(rng):
    student, teacher = rng.normal(size=(2, 2, 3, 3))
    objective = FeatureTransform(temperature=0.3, queue=5)
    module = queue_of(objective)
    old = module.vectors.numpy().astype(np.float64)
    loss = objective(_batch(student, teacher, module)).total
    generator = torch.Generator().manual_seed(3)
    away = 1 + np.sort(torch.rand(3, 6, 3, generator=generator).numpy(), axis=0)[1]
    order = torch.randperm(5, generator=generator).numpy()
    share = np.sort(torch.rand(3, 5, 3, generator=generator).numpy(), axis=0)[1]
    negatives = [share[j] * old[j] + (1 - share[j]) * old[order[j]] for j in range(5)]
    total = 0.0
    queries, keys = unit(student).reshape(6, 3), unit(teacher)[::-1].reshape(6, 3)
    for q, k, factor in zip(queries, keys, away, strict=True):
        query, key = factor * q + (1 - factor) * k, factor * k + (1 - factor) * q
        positive = math.exp(query @ key / 0.3)
        rest = sum(math.exp(query @ negative / 0.3) for negative in negatives)
        total += -math.log(positive / (positive + rest)) / 6
    assert loss.item() == pytest.approx(total, rel=1e-4)


def test_without_either_it_is_moco(rng):
    student, teacher = rng.normal(size=(2, 2, 3, 3))
    objective = FeatureTransform(queue=8, extrapolate=False, interpolate=False)
    plain = MoCo(queue=8)
    transformed = objective(_batch(student, teacher, queue_of(objective))).total
    assert transformed.item() == plain(_batch(student, teacher, queue_of(plain))).total.item()


def test_extrapolation_makes_a_pair_harder(rng):
    student, teacher = rng.normal(size=(1, 40, 3)) + 0.3 * rng.normal(size=(2, 2, 40, 3))
    harder = FeatureTransform(interpolate=False, queue=8)
    plain = FeatureTransform(interpolate=False, extrapolate=False, queue=8)
    assert (
        harder(_batch(student, teacher, queue_of(harder))).total
        > plain(_batch(student, teacher, queue_of(plain))).total
    )


@pytest.mark.parametrize("arguments", [{"temperature": 0.0}, {"queue": 0}, {"warmup": 2.0}])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(InvalidInput, match=next(iter(arguments))):
        FeatureTransform(**arguments)


def _batch(student, teacher, module):
    z, t = (torch.tensor(a, dtype=torch.float32) for a in (student, teacher))
    generator = torch.Generator().manual_seed(3)
    return Batch(z, z, module=module, teacher=t, generator=generator)
