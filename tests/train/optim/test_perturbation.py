"""SAM and AMP on a parabola, whose gradients are known in closed form."""

import pytest
import torch
from torch import nn

from embedkit.errors import InvalidInput
from embedkit.train.optim.perturbation import perturbed_gradient
from embedkit.train.settings import OptimiserSection

CURVATURE = torch.tensor([[3.0, 1.0, 0.0], [1.0, 2.0, 0.5], [0.0, 0.5, 4.0]])


class Parabola:
    """Half of w' A w over weights that are split into two parameters."""

    def __init__(self, values):
        self.parameters = [nn.Parameter(torch.tensor(part)) for part in values]
        self.calls = 0

    def gradient(self):
        self.calls += 1
        for parameter in self.parameters:
            parameter.grad = None
        w = torch.cat(self.parameters)
        (0.5 * w @ CURVATURE @ w).backward()

    def flat(self):
        return torch.cat([p.grad for p in self.parameters])


def test_one_step_is_sam():
    """Foret et al., equations 2 and 3: the gradient at w + rho g / ||g||."""
    parabola = Parabola([[1.0, -2.0], [0.5]])
    parabola.gradient()
    w = torch.tensor([1.0, -2.0, 0.5])
    g = CURVATURE @ w
    perturbed_gradient(parabola.parameters, parabola.gradient, radius=0.3)
    torch.testing.assert_close(parabola.flat(), CURVATURE @ (w + 0.3 * g / g.norm()))
    assert parabola.calls == 2


def test_several_steps_are_amp():
    """Zheng et al., algorithm 1 with steps of radius / 3, projected into the ball."""
    parabola = Parabola([[1.0, -2.0], [0.5]])
    parabola.gradient()
    w, offset = torch.tensor([1.0, -2.0, 0.5]), torch.zeros(3)
    for _ in range(3):
        g = CURVATURE @ (w + offset)
        offset = offset + 0.3 / 3 * g / g.norm()
        offset = offset * min(1.0, 0.3 / offset.norm().item())
    perturbed_gradient(parabola.parameters, parabola.gradient, radius=0.3, steps=3)
    torch.testing.assert_close(parabola.flat(), CURVATURE @ (w + offset))


def test_weights_are_left_as_they_were_to_the_bit_even_after_an_error():
    parabola = Parabola([[0.1, -0.7], [1e-9]])
    before = [p.detach().clone() for p in parabola.parameters]
    parabola.gradient()
    perturbed_gradient(parabola.parameters, parabola.gradient, radius=0.11, steps=2)
    assert all(torch.equal(p, b) for p, b in zip(parabola.parameters, before, strict=True))

    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        perturbed_gradient(parabola.parameters, fail, radius=0.11)
    assert all(torch.equal(p, b) for p, b in zip(parabola.parameters, before, strict=True))


def test_a_gradient_of_zero_stays_zero():
    parabola = Parabola([[0.0, 0.0], [0.0]])
    parabola.gradient()
    perturbed_gradient(parabola.parameters, parabola.gradient, radius=0.3)
    assert torch.equal(parabola.flat(), torch.zeros(3))


@pytest.mark.parametrize(
    "values",
    [
        {"perturbation_radius": 0.0},
        {"perturbation": "amp", "perturbation_steps": 0},
        {"perturbation": "sam", "perturbation_steps": 2},
    ],
)
def test_what_cannot_be_is_refused(values):
    with pytest.raises(InvalidInput, match="perturbation"):
        OptimiserSection(**values)
