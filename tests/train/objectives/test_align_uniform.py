"""Alignment and uniformity against the definitions of section 4.1, written with loops."""

import math

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.measures.geometry import uniformity
from embedkit.train.objective import Batch
from embedkit.train.objectives.align_uniform import AlignUniform


def terms(z, power, sharpness):
    """The two losses, before their weights."""
    z = z / np.linalg.norm(z, axis=2, keepdims=True)
    b = z.shape[1]
    align = sum(np.linalg.norm(z[0, i] - z[1, i]) ** power for i in range(b)) / b
    uniform = 0.0
    for view in z:
        pairs = [(i, k) for i in range(b) for k in range(b) if k > i]
        potentials = [math.exp(-sharpness * np.sum((view[i] - view[k]) ** 2)) for i, k in pairs]
        uniform += math.log(sum(potentials) / len(pairs)) / 2
    return align, uniform


@pytest.mark.parametrize(("images", "power"), [(2, 2.0), (6, 1.0)])
def test_definitions(rng, images, power):
    z = rng.normal(size=(2, images, 4))
    objective = AlignUniform(alignment=0.7, uniformity=1.3, power=power, sharpness=1.5)
    align, uniform = terms(z, power, 1.5)
    loss = objective(_batch(z))
    assert loss.parts["alignment"].item() == pytest.approx(0.7 * align, rel=1e-5)
    assert loss.parts["uniformity"].item() == pytest.approx(1.3 * uniform, rel=1e-5)


def test_uniformity_is_what_the_monitor_measures(rng):
    z = rng.normal(size=(5, 3))
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    loss = AlignUniform()(_batch(np.stack([z, z])))
    expected = uniformity(z.astype(np.float32))
    assert loss.parts["uniformity"].item() == pytest.approx(expected, rel=1e-4)


def test_equal_views_have_a_gradient_at_any_power(rng):
    z = rng.normal(size=(4, 3))
    both = torch.tensor(np.stack([z, z]), dtype=torch.float32, requires_grad=True)
    AlignUniform(power=1.0)(Batch(both, both)).total.backward()
    assert both.grad is not None
    assert torch.isfinite(both.grad).all()


@pytest.mark.parametrize("arguments", [{"alignment": -1.0}, {"power": 0.0}, {"sharpness": 0.0}])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(InvalidInput, match="expected"):
        AlignUniform(**arguments)


def _batch(z):
    tensor = torch.tensor(z, dtype=torch.float32)
    return Batch(tensor, tensor)
