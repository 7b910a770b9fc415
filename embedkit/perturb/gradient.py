"""Gradient ascent inside a norm ball: projections, random starts, step rules and the loop.

Pixels are floats in [0, 1], (n, c, h, w); a radius is in the same unit. Losses are per image,
so that every image climbs on its own and a batch never couples its members.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from embedkit.errors import InvalidInput

__all__ = [
    "Ascent",
    "Norm",
    "PixelLoss",
    "Rule",
    "Schedule",
    "ascend",
    "into_ball",
    "lengths_of",
    "project",
    "project_l2",
    "project_linf",
    "random_start",
    "steepest",
    "value_and_gradient",
]

Norm = Literal["linf", "l2"]
Rule = Literal["steepest", "momentum"]
PixelLoss = Callable[[Tensor], Tensor]
"""From pixels (n, c, h, w) in [0, 1] to what is maximised, (n,)."""


@dataclass(frozen=True)
class Schedule:
    """How far and how often to step.

    Attributes:
        steps: Number of gradient steps, at least 1.
        step_size: Length of a step in the ball's norm, in pixel units of [0, 1].
        rule: ``steepest`` (sign for linf, unit gradient for l2), or ``momentum``, which
            accumulates gradients of unit l1 norm before that (MI-FGSM, Dong 2018).
        decay: Decay of the momentum, at least 0; 0 equals ``steepest``.
        keep: The ``best`` iterate of each image, or the ``last`` as published attacks have it.
    """

    steps: int
    step_size: float
    rule: Rule = "steepest"
    decay: float = 1.0
    keep: Literal["best", "last"] = "best"


@dataclass(frozen=True)
class Ascent:
    """What gradient ascent found.

    Attributes:
        pixels: The best iterate of each image, (n, c, h, w) in [0, 1].
        values: Loss of each of these, (n,).
        gradient_norms: Largest l2 norm of the gradient met on the way, (n,). Zero means that
            the search never had a direction, so its result says nothing about robustness.
        margins: At most 0 where a goal beside the loss was reached, (n,); None without one.
    """

    pixels: Tensor
    values: Tensor
    gradient_norms: Tensor
    margins: Tensor | None = None

    @property
    def margins_or_inf(self) -> Tensor:
        """The margins; infinite where there is no goal."""
        if self.margins is None:
            return torch.full_like(self.values, torch.inf)
        return self.margins

    def better(self, other: "Ascent") -> "Ascent":
        """Return the better of two searches, image by image."""
        pixels, values = _better(self.pixels, self.values, other.pixels, other.values)
        norms = torch.maximum(self.gradient_norms, other.gradient_norms)
        return Ascent(pixels, values, norms)


def project_linf(delta: Tensor, radius: float) -> Tensor:
    """Return the nearest perturbation with no component above ``radius``."""
    return delta.clamp(-radius, radius)


def project_l2(delta: Tensor, radius: float) -> Tensor:
    """Return the nearest perturbation of each image, (n, ...), no longer than ``radius``."""
    lengths = lengths_of(delta)
    scale = (radius / lengths.clamp_min(torch.finfo(delta.dtype).tiny)).clamp_max(1.0)
    return delta * _spread(scale, delta)


def project(delta: Tensor, norm: Norm, radius: float) -> Tensor:
    """Return the nearest perturbation inside the ball of ``norm`` and ``radius``.

    Raises:
        InvalidInput: If the norm is unknown.
    """
    if norm == "linf":
        return project_linf(delta, radius)
    if norm == "l2":
        return project_l2(delta, radius)
    raise InvalidInput(f"expected the norm 'linf' or 'l2', got {norm!r}")


def random_start(
    shape: tuple[int, ...], norm: Norm, radius: float, generator: torch.Generator
) -> Tensor:
    """Return perturbations uniform in the ball, (n, ...), one independent draw per image.

    A start of zero must never be used with a distance to the image's own embedding: that
    distance has its minimum there and the gradient vanishes.
    """
    if norm == "linf":
        drawn = torch.rand(shape, generator=generator, device=generator.device)
        return (drawn * 2 - 1) * radius
    direction = torch.randn(shape, generator=generator, device=generator.device)
    direction = direction / _spread(lengths_of(direction).clamp_min(1e-12), direction)
    dimensions = direction[0].numel()
    drawn = torch.rand(shape[0], generator=generator, device=generator.device)
    return direction * _spread(drawn ** (1.0 / dimensions) * radius, direction)


def steepest(gradient: Tensor, norm: Norm) -> Tensor:
    """Return the unit step, in ``norm``, along which a linear loss grows most."""
    if norm == "linf":
        return gradient.sign()
    lengths = lengths_of(gradient).clamp_min(torch.finfo(gradient.dtype).tiny)
    return gradient / _spread(lengths, gradient)


def ascend(
    loss: PixelLoss,
    images: Tensor,
    start: Tensor,
    norm: Norm,
    radius: float,
    schedule: Schedule,
) -> Ascent:
    """Climb ``loss`` inside the ball around each image and [0, 1]; keep the best iterate.

    Args:
        loss: What to maximise, per image.
        images: Clean pixels, (n, c, h, w) in [0, 1].
        start: First perturbation, same shape; it is projected before use.
        norm: Norm of the ball.
        radius: Radius of the ball, in pixel units of [0, 1].
        schedule: Number, length and rule of the steps.

    Returns:
        The best of the ``steps + 1`` iterates of each image, the start included.
    """
    pixels = into_ball(images, start, norm, radius)
    best = pixels
    best_values = torch.full(
        (len(images),), -torch.inf, dtype=images.dtype, device=images.device
    )
    gradient_norms = torch.zeros_like(best_values)
    velocity = torch.zeros_like(images)
    for _ in range(schedule.steps):
        values, gradient = value_and_gradient(loss, pixels)
        best, best_values = _better(best, best_values, pixels, values)
        gradient_norms = torch.maximum(gradient_norms, lengths_of(gradient))
        if schedule.rule == "momentum":
            velocity = schedule.decay * velocity + _unit_l1(gradient)
        else:
            velocity = gradient
        moved = pixels + schedule.step_size * steepest(velocity, norm)
        pixels = into_ball(images, moved - images, norm, radius)
    with torch.no_grad():
        values = loss(pixels)
    if schedule.keep == "last":
        return Ascent(pixels, values, gradient_norms)
    best, best_values = _better(best, best_values, pixels, values)
    return Ascent(best, best_values, gradient_norms)


def value_and_gradient(loss: PixelLoss, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss of each image, (n,), and its gradient in the pixels, (n, c, h, w)."""
    leaf = pixels.detach().requires_grad_(True)
    values = loss(leaf)
    (gradient,) = torch.autograd.grad(values.sum(), leaf)
    return values.detach(), gradient


def _better(
    best: Tensor, best_values: Tensor, pixels: Tensor, values: Tensor
) -> tuple[Tensor, Tensor]:
    improved = values > best_values
    return (
        torch.where(_spread(improved, pixels), pixels, best),
        torch.where(improved, values, best_values),
    )


def into_ball(images: Tensor, delta: Tensor, norm: Norm, radius: float) -> Tensor:
    """Return the images plus perturbations that are projected onto the ball and [0, 1].

    Clipping to [0, 1] only shortens a perturbation, so the order keeps both constraints.
    """
    return (images + project(delta, norm, radius)).clamp(0.0, 1.0)


def _unit_l1(gradient: Tensor) -> Tensor:
    mass = gradient.flatten(1).abs().mean(dim=1).clamp_min(torch.finfo(gradient.dtype).tiny)
    return gradient / _spread(mass, gradient)


def lengths_of(delta: Tensor) -> Tensor:
    """Return the Euclidean length of each perturbation, (n,)."""
    lengths: Tensor = delta.flatten(1).norm(dim=1)
    return lengths


def _spread(per_image: Tensor, like: Tensor) -> Tensor:
    return per_image.view(-1, *([1] * (like.dim() - 1)))
