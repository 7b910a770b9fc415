"""MoCHi: the mixed negatives against equations 3 and 4, and the loss with them."""

import math

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch, Sizes
from embedkit.train.objectives.hard_negative_mixing import HardNegativeMixing
from embedkit.train.objectives.moco import MoCo

SIZES = Sizes(dim=3, feature_dim=9)


def unit(z):
    return z / np.linalg.norm(z, axis=-1, keepdims=True)


def queue_of(objective):
    torch.manual_seed(7)
    return objective.build(SIZES)


def synthetic(objective, queries, negatives, generator):
    """Equations 3 and 4 with the same random numbers, one query and one negative at a time."""
    n, count = len(queries), min(objective.hardest, len(negatives))

    def integers(number):
        return torch.randint(count, (n, number), generator=generator).numpy()

    def shares(number):
        return torch.rand(n, number, 1, generator=generator).numpy()[..., 0]

    first, second = integers(objective.mixed), integers(objective.mixed)
    alpha = shares(objective.mixed)
    third = integers(objective.mixed_with_query)
    beta = 0.5 * shares(objective.mixed_with_query)
    rows = []
    for i, query in enumerate(queries):
        hardest = negatives[np.argsort(-(negatives @ query), kind="stable")[:count]]
        pairs = [
            a * hardest[j] + (1 - a) * hardest[k]
            for a, j, k in zip(alpha[i], first[i], second[i], strict=True)
        ]
        near = [
            b * query + (1 - b) * hardest[j] for b, j in zip(beta[i], third[i], strict=True)
        ]
        rows.append(unit(np.array(pairs + near)))
    return rows


def test_equations_3_and_4(rng):
    objective = HardNegativeMixing(0.3, queue=10, hardest=4, mixed=5, mixed_with_query=3)
    student, teacher = rng.normal(size=(2, 2, 3, 3))
    module = queue_of(objective)
    old = module.vectors.numpy().astype(np.float64)
    batch = _batch(student, teacher, module, progress=0.5)
    queries = unit(student).reshape(6, 3)
    keys = unit(teacher)[::-1].reshape(6, 3)
    made = synthetic(objective, queries, old, torch.Generator().manual_seed(3))
    total = 0.0
    for query, key, more in zip(queries, keys, made, strict=True):
        positive = math.exp(query @ key / 0.3)
        negatives = np.exp(np.concatenate([old, more]) @ query / 0.3).sum()
        total += -math.log(positive / (positive + negatives)) / 6
    assert objective(batch).total.item() == pytest.approx(total, rel=1e-4)


def test_before_the_warmup_ends_it_is_moco(rng):
    student, teacher = rng.normal(size=(2, 2, 3, 3))
    objective, plain = HardNegativeMixing(queue=8, warmup=0.3), MoCo(queue=8)
    early = objective(_batch(student, teacher, queue_of(objective), progress=0.2)).total
    late = objective(_batch(student, teacher, queue_of(objective), progress=0.4)).total
    moco = plain(_batch(student, teacher, queue_of(plain), progress=0.2)).total
    assert early.item() == moco.item()
    assert late.item() > moco.item()


def test_under_autocast_the_loss_is_that_in_float32(rng):
    student, teacher = rng.normal(size=(2, 2, 3, 3))
    objective = HardNegativeMixing(0.05, queue=10, hardest=4, mixed=5, mixed_with_query=3)
    plain = objective(_batch(student, teacher, queue_of(objective), progress=0.5)).total
    with torch.autocast("cpu", torch.bfloat16):
        low = objective(_batch(student, teacher, queue_of(objective), progress=0.5)).total
    assert low.item() == plain.item()


@pytest.mark.parametrize(
    "arguments",
    [{"temperature": 0.0}, {"queue": 1}, {"hardest": 1}, {"mixed": -1}, {"warmup": 2.0}],
)
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(InvalidInput, match=next(iter(arguments))):
        HardNegativeMixing(**arguments)


def _batch(student, teacher, module, progress):
    z, t = (torch.tensor(a, dtype=torch.float32) for a in (student, teacher))
    generator = torch.Generator().manual_seed(3)
    return Batch(z, z, module=module, teacher=t, generator=generator, progress=progress)
