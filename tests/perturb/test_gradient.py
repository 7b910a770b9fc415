"""Projections against their definitions, and ascent against optima found by enumeration."""

import itertools

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.perturb.gradient import (
    Schedule,
    ascend,
    project,
    project_l2,
    project_linf,
    random_start,
    steepest,
)

PIXELS = (1, 2, 5)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_projection_linf_is_the_nearest_point_of_the_cube():
    delta = torch.tensor([[[[0.5, -0.05, -0.5]]]])
    expected = torch.tensor([[[[0.1, -0.05, -0.1]]]])
    torch.testing.assert_close(project_linf(delta, 0.1), expected)


def test_projection_l2_shortens_and_keeps_the_direction():
    delta = torch.stack([torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[0.3, 0.4]]])])
    projected = project_l2(delta, 1.0)
    torch.testing.assert_close(projected[0], torch.tensor([[[0.6, 0.8]]]))
    torch.testing.assert_close(projected[1], delta[1])


def test_projection_l2_leaves_zero_alone():
    assert torch.equal(project_l2(torch.zeros(2, *PIXELS), 0.5), torch.zeros(2, *PIXELS))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_projection_is_idempotent(norm):
    delta = torch.randn(4, *PIXELS, generator=generator())
    once = project(delta, norm, 0.3)
    torch.testing.assert_close(project(once, norm, 0.3), once)


def test_unknown_norm_is_refused():
    with pytest.raises(InvalidInput, match="expected the norm 'linf' or 'l2', got 'l1'"):
        project(torch.zeros(1, *PIXELS), "l1", 0.1)  # type: ignore[arg-type]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_start_fills_the_ball(norm):
    start = random_start((4000, 1, 1, 2), norm, 0.25, generator())
    order = torch.inf if norm == "linf" else 2
    lengths = start.flatten(1).norm(order, dim=1)
    assert lengths.max() <= 0.25 * (1 + 1e-6)
    # Uniform in two dimensions: half of the mass lies within radius / sqrt(2), in both norms.
    assert abs(float((lengths <= 0.25 / 2**0.5).float().mean()) - 0.5) < 0.03
    assert abs(float(start.mean())) < 0.01


def test_steepest_step_has_unit_length():
    gradient = torch.randn(3, *PIXELS, generator=generator())
    assert torch.equal(steepest(gradient, "linf").abs(), torch.ones_like(gradient))
    lengths = steepest(gradient, "l2").flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(3))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("rule", ["steepest", "momentum"])
def test_linear_loss_reaches_the_exact_optimum(norm, rule):
    weight = torch.randn(*PIXELS, generator=generator())
    images = torch.full((3, *PIXELS), 0.5)
    start = random_start(images.shape, norm, 0.1, generator(1))
    found = ascend(
        lambda x: (x * weight).sum(dim=(1, 2, 3)),
        images,
        start,
        norm,
        0.1,
        Schedule(40, 0.02, rule),
    )
    clean = (images * weight).sum(dim=(1, 2, 3))
    dual = weight.abs().sum() if norm == "linf" else weight.norm()
    torch.testing.assert_close(found.values - clean, (0.1 * dual).expand(3), rtol=1e-4, atol=0)
    torch.testing.assert_close(found.gradient_norms, weight.norm().expand(3))


def test_linear_embedding_reaches_the_enumerated_optimum():
    """The farthest image in a cube from a linear map's own output sits on a corner."""
    matrix = torch.randn(6, 10, generator=generator(3))
    radius = 8 / 255
    corners = torch.tensor(list(itertools.product([-radius, radius], repeat=10)))
    optimum = float((corners @ matrix.T).square().sum(dim=1).max())
    # One image many times: every copy starts elsewhere, because the distance has local maxima.
    images = torch.full((32, *PIXELS), 0.5)
    anchor = images.flatten(1) @ matrix.T

    def distance(pixels):
        return (pixels.flatten(1) @ matrix.T - anchor).square().sum(dim=1)

    start = random_start(images.shape, "linf", radius, generator(1))
    found = ascend(distance, images, start, "linf", radius, Schedule(40, radius / 16))
    best = float(found.values.max())
    assert 0.99 * optimum <= best <= optimum * (1 + 1e-5)
    assert float(found.values.median()) > 0.6 * optimum


def test_without_a_random_start_the_distance_to_oneself_never_moves():
    images = torch.rand(2, *PIXELS, generator=generator())

    def distance(pixels):
        return (pixels - images).flatten(1).square().sum(dim=1)

    found = ascend(distance, images, torch.zeros_like(images), "linf", 0.1, Schedule(10, 0.02))
    assert torch.equal(found.pixels, images)
    assert torch.equal(found.gradient_norms, torch.zeros(2))


def test_the_best_iterate_is_kept_not_the_last():
    """A step of twice the ball oscillates; the start is the best point there is."""
    images = torch.full((1, *PIXELS), 0.5)
    start = torch.full_like(images, 0.01)
    found = ascend(
        lambda x: -(x - 0.51).flatten(1).abs().sum(dim=1),
        images,
        start,
        "linf",
        0.1,
        Schedule(3, 0.2),
    )
    torch.testing.assert_close(found.pixels, images + start)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_iterates_stay_in_the_ball_and_in_range(norm):
    images = torch.rand(8, *PIXELS, generator=generator()).round()
    start = 10 * torch.randn(images.shape, generator=generator())
    found = ascend(
        lambda x: x.sin().sum(dim=(1, 2, 3)), images, start, norm, 0.2, Schedule(7, 0.3)
    )
    order = np.inf if norm == "linf" else 2
    lengths = (found.pixels - images).flatten(1).norm(order, dim=1)
    assert lengths.max() <= 0.2 * (1 + 1e-5)
    assert found.pixels.min() >= 0
    assert found.pixels.max() <= 1


def test_images_do_not_influence_each_other():
    weight = torch.randn(*PIXELS, generator=generator())
    images = torch.rand(4, *PIXELS, generator=generator(1))
    start = random_start(images.shape, "l2", 0.3, generator(2))

    def loss(pixels):
        return (pixels * weight).sum(dim=(1, 2, 3)).sin()

    together = ascend(loss, images, start, "l2", 0.3, Schedule(9, 0.1))
    alone = ascend(loss, images[2:3], start[2:3], "l2", 0.3, Schedule(9, 0.1))
    torch.testing.assert_close(together.pixels[2:3], alone.pixels)


def test_better_takes_the_larger_value_per_image():
    images = torch.full((2, *PIXELS), 0.5)
    up, down = torch.full_like(images, 0.1), torch.full_like(images, -0.1)

    def loss(pixels):
        return (pixels - 0.5).sum(dim=(1, 2, 3)) * torch.tensor([1.0, -1.0])

    # Steps of no length: each search returns its own start.
    first = ascend(loss, images, up, "linf", 0.1, Schedule(1, 0.0))
    second = ascend(loss, images, down, "linf", 0.1, Schedule(1, 0.0))
    both = first.better(second)
    torch.testing.assert_close(both.pixels[0], images[0] + 0.1)
    torch.testing.assert_close(both.pixels[1], images[1] - 0.1)
    assert bool((both.values > 0).all())
