"""The adversary: inside its ball, better than chance, and power iteration as in VAT."""

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.perturb.adversary import Adversary

CPU = torch.Generator


def images(n=5):
    return torch.rand(n, 2, 4, 4, generator=CPU().manual_seed(1))


def quadratic(pixels):
    """Half of delta' H delta around ``images()``, with a known matrix per image."""
    factor = torch.randn(5, 32, 32, generator=CPU().manual_seed(2)).double()
    hessian = factor @ factor.mT
    centre = images().flatten(1).double()

    def loss(x):
        delta = x.flatten(1).double() - centre[: len(x)]
        return 0.5 * torch.einsum("ni,nij,nj->n", delta, hessian[: len(x)], delta)

    return loss, hessian


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("steps", [1, 4])
def test_changes_stay_in_the_ball_and_in_range(norm, steps):
    pixels, adversary = images(), Adversary(51.0, steps, norm)
    loss, _ = quadratic(pixels)
    found = adversary.find(loss, pixels, adversary.start(pixels, CPU().manual_seed(0)))
    assert not found.requires_grad
    assert found.min() >= 0
    assert found.max() <= 1
    change = (found - pixels).flatten(1).double()
    size = change.abs().amax(dim=1) if norm == "linf" else change.norm(dim=1)
    assert (size <= 0.2 + 1e-6).all()
    assert (size > 0.1).all()


def test_a_step_of_fgsm_from_a_random_start():
    """Wong et al.: delta = clip(u + 1.25 eps sign(g(x + u)), -eps, eps), then into [0, 1]."""
    pixels, adversary = images(), Adversary(25.5)
    loss, hessian = quadratic(pixels)
    start = adversary.start(pixels, CPU().manual_seed(0))
    found = adversary.find(loss, pixels, start)
    x, u = pixels.double().numpy(), start.double().numpy()
    assert np.abs(u).max() <= 0.1
    delta = np.clip(x + u, 0, 1) - x
    gradient = np.einsum("nij,nj->ni", hessian.numpy(), delta.reshape(5, -1)).reshape(x.shape)
    expected = np.clip(x + np.clip(u + 0.125 * np.sign(gradient), -0.1, 0.1), 0, 1)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_more_steps_do_more_harm_than_one_and_any_more_than_the_start():
    pixels = images()
    loss, _ = quadratic(pixels)
    one, ten = Adversary(25.5, 1), Adversary(25.5, 10)
    start = one.start(pixels, CPU().manual_seed(0))
    harm = [loss(pixels + start).sum()]
    harm += [loss(a.find(loss, pixels, start)).sum() for a in (one, ten)]
    assert harm[0] < harm[1] <= harm[2]


def test_power_iteration_is_that_of_the_hessian():
    """Equations 9 to 11: d <- H d, normalised; for a quadratic loss that is exact."""
    pixels = images() * 0 + 0.5
    _, hessian = quadratic(pixels)

    def loss(x):
        delta = (x - pixels).flatten(1).double()
        return 0.5 * torch.einsum("ni,nij,nj->n", delta, hessian, delta)

    adversary = Adversary(51.0, 3, "l2", "power")
    start = adversary.start(pixels, CPU().manual_seed(0))
    found = adversary.find(loss, pixels, start)
    for image in range(5):
        d = start[image].double().numpy().ravel()
        assert np.linalg.norm(d) == pytest.approx(1, abs=1e-5)
        for _ in range(3):
            d = hessian[image].numpy() @ d
            d /= np.linalg.norm(d)
        change = (found - pixels)[image].double().numpy().ravel()
        np.testing.assert_allclose(change, 0.2 * d, atol=1e-5)


def test_parameters_get_no_gradient_and_grad_mode_does_not_matter():
    weight = torch.nn.Parameter(torch.ones(32))
    pixels, adversary = images(), Adversary(10.0, 2)

    def loss(x):
        return x.flatten(1) @ weight

    start = adversary.start(pixels, CPU().manual_seed(0))
    expected = adversary.find(loss, pixels, start)
    with torch.no_grad():
        assert torch.equal(adversary.find(loss, pixels, start), expected)
    assert weight.grad is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"radius_255": 0.0}, "radius_255 above 0, got 0.0"),
        ({"radius_255": 1.0, "steps": 0}, "steps of at least 1, got 0"),
        ({"radius_255": 1.0, "norm": "l1"}, "'linf' or 'l2', got 'l1'"),
        ({"radius_255": 1.0, "search": "power"}, "l2 for power iteration, got 'linf'"),
    ],
)
def test_what_cannot_be_is_refused(values, message):
    with pytest.raises(InvalidInput, match=message):
        Adversary(**values)
