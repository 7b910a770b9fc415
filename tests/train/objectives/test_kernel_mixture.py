"""Kernel-InfoNCE with the simple sum kernel, written with loops."""

import math

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch
from embedkit.train.objectives.kernel_mixture import KernelMixture
from embedkit.train.objectives.simclr import SimCLR


def kernel_info_nce(z, gaussian, laplacian):
    """Minus the log of the positive's share of all kernel values, over both directions."""
    v, b, _ = z.shape
    flat = [z[i, j] / np.linalg.norm(z[i, j]) for i in range(v) for j in range(b)]

    def kernel(x, y):
        r = np.linalg.norm(x - y)
        return math.exp(-(r**2) / gaussian) + math.exp(-r / laplacian)

    total = 0.0
    for i in range(2 * b):
        everything = sum(kernel(flat[i], flat[k]) for k in range(2 * b) if k != i)
        total += -math.log(kernel(flat[i], flat[(i + b) % (2 * b)]) / everything)
    return total / (2 * b)


@pytest.mark.parametrize(("images", "scales"), [(2, (0.4, 0.4)), (6, (1.0, 0.2))])
def test_definition(rng, images, scales):
    z = rng.normal(size=(2, images, 5))
    loss = KernelMixture(*scales)(_batch(z)).total
    assert loss.item() == pytest.approx(kernel_info_nce(z, *scales), rel=1e-5)


def test_the_gaussian_kernel_alone_is_simclr(rng):
    z = rng.normal(size=(2, 6, 4))
    loss = KernelMixture(gaussian=0.4, laplacian=1e-3)(_batch(z)).total
    assert loss.item() == pytest.approx(SimCLR(0.2)(_batch(z)).total.item(), rel=1e-4)


def test_equal_views_have_a_gradient(rng):
    z = rng.normal(size=(4, 3))
    both = torch.tensor(np.stack([z, z]), dtype=torch.float32, requires_grad=True)
    KernelMixture()(Batch(both, both)).total.backward()
    assert both.grad is not None
    assert torch.isfinite(both.grad).all()


@pytest.mark.parametrize("arguments", [{"gaussian": 0.0}, {"laplacian": -1.0}])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(InvalidInput, match="scales above 0"):
        KernelMixture(**arguments)


def _batch(z):
    tensor = torch.tensor(z, dtype=torch.float32)
    return Batch(tensor, tensor)
