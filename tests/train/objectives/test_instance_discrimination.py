"""Instance discrimination against equations 2 and 5 to 10 of the paper, written with loops."""

import math

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch
from embedkit.train.objectives.instance_discrimination import Bank, InstanceDiscrimination

IMAGES = 9


def unit(z):
    return z / np.linalg.norm(z, axis=-1, keepdims=True)


def test_equation_2_without_noise(rng):
    z, bank = rng.normal(size=(1, 3, 4)), Bank(IMAGES, 4)
    old = bank.vectors.numpy().astype(np.float64)
    loss = InstanceDiscrimination(0.5, negatives=0)(_batch(z, bank)).total
    total = 0.0
    for i, f in zip([7, 0, 4], unit(z[0]), strict=True):
        everything = sum(math.exp(v @ f / 0.5) for v in old)
        total += -math.log(math.exp(old[i] @ f / 0.5) / everything)
    assert loss.item() == pytest.approx(total / 3, rel=1e-5)


def test_equations_5_to_8_and_10(rng):
    z, bank = rng.normal(size=(1, 3, 4)), Bank(IMAGES, 4)
    old = bank.vectors.numpy().astype(np.float64)
    objective = InstanceDiscrimination(0.5, negatives=5, proximal=0.7)
    loss = objective(_batch(z, bank))
    drawn = torch.randint(IMAGES, (5,), generator=torch.Generator().manual_seed(3)).numpy()
    features, m = unit(z[0]), 5
    constant = IMAGES * np.mean([math.exp(old[k] @ f / 0.5) for f in features for k in drawn])

    def posterior(v, f):
        p = math.exp(v @ f / 0.5) / constant
        return p / (p + m / IMAGES)

    contrast = proximal = 0.0
    for i, f in zip([7, 0, 4], features, strict=True):
        contrast -= math.log(posterior(old[i], f))
        contrast -= sum(math.log(1 - posterior(old[k], f)) for k in drawn)
        proximal += 0.7 * np.sum((f - old[i]) ** 2)
    assert loss.parts["contrast"].item() == pytest.approx(contrast / 3, rel=1e-5)
    assert loss.parts["proximal"].item() == pytest.approx(proximal / 3, rel=1e-5)
    assert bank.log_constant.item() == pytest.approx(math.log(constant), rel=1e-5)


def test_the_constant_stays_and_the_memory_moves(rng):
    z, bank = rng.normal(size=(1, 3, 4)), Bank(IMAGES, 4)
    old = bank.vectors.numpy().copy()
    objective = InstanceDiscrimination(negatives=5, keep=0.25)
    objective(_batch(z, bank))
    constant = bank.log_constant.item()
    moved = unit(0.25 * old[[7, 0, 4]] + 0.75 * unit(z[0]))
    assert np.allclose(bank.vectors[[7, 0, 4]].numpy(), moved, atol=1e-6)
    untouched = [1, 2, 3, 5, 6, 8]
    assert np.array_equal(bank.vectors[untouched].numpy(), old[untouched])
    objective(_batch(-z, bank))
    assert bank.log_constant.item() == constant


def test_an_index_beyond_the_memory_is_refused(rng):
    with pytest.raises(InvalidInput, match="below the 5 images"):
        InstanceDiscrimination()(_batch(rng.normal(size=(1, 3, 4)), Bank(5, 4)))


@pytest.mark.parametrize(
    "arguments", [{"temperature": 0.0}, {"negatives": -1}, {"keep": 1.0}, {"proximal": -1.0}]
)
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(InvalidInput, match=next(iter(arguments))):
        InstanceDiscrimination(**arguments)


def _batch(z, bank):
    tensor = torch.tensor(z, dtype=torch.float32)
    generator = torch.Generator().manual_seed(3)
    indices = torch.tensor([7, 0, 4])
    return Batch(tensor, tensor, module=bank, indices=indices, generator=generator)
