"""Auto-PGD: gradient ascent that chooses its own step sizes (Croce and Hein 2020)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from embedkit.errors import InvalidInput
from embedkit.perturb.gradient import Ascent, Norm, into_ball, lengths_of, steepest

__all__ = ["Checkpoints", "auto_ascend", "checkpoints"]

Judge = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From pixels (n, c, h, w) to what is climbed, (n,), and margins, (n,): at most 0 is a goal."""

MOMENTUM = 0.75
"""Weight of the new step against the last one (section 3.1)."""

RHO = 0.75
"""Share of steps that must improve the loss, or the step size is halved (condition 1)."""


def checkpoints(steps: int) -> tuple[int, ...]:
    """Steps after which the step size is looked at (section 3.2), counted from 1.

    The periods are 22 % of the steps, then 3 % fewer each time, and never below 6 %, all
    rounded down to whole steps as in the published code.

    Example:
        >>> checkpoints(100)[:4]
        (22, 41, 57, 70)
    """
    first, shorter, least = (max(int(share * steps), 1) for share in (0.22, 0.03, 0.06))
    found, period, step = [], first, 0
    while step + period <= steps:
        step += period
        found.append(step)
        period = max(period - shorter, least)
    return tuple(found)


@dataclass
class Checkpoints:
    """The state from which halvings of the step size are decided, image by image.

    Attributes:
        improved: Steps since the last checkpoint that raised the loss, (n,).
        best_then: Best loss at the last checkpoint, (n,).
        halved_then: Whether the step size was halved there, (n,).
    """

    improved: Tensor
    best_then: Tensor
    halved_then: Tensor

    def halve(self, period: int, best: Tensor) -> Tensor:
        """Whether each step size is halved now, (n,); starts the next period.

        Condition 1: fewer than or exactly RHO of the steps raised the loss. Condition 2: the
        step size was not halved at the last checkpoint and the best loss is as it was there.
        """
        stuck = ~self.halved_then & (self.best_then >= best)
        halved = (self.improved <= RHO * period) | stuck
        self.improved = torch.zeros_like(self.improved)
        self.best_then = best.clone()
        self.halved_then = halved
        return halved


def auto_ascend(
    judge: Judge, images: Tensor, start: Tensor, norm: Norm, radius: float, steps: int
) -> Ascent:
    """Climb inside the ball around each image and [0, 1]; keep the best iterate.

    An iterate whose margin reaches the goal is better than any that does not; among those with
    the goal the smallest margin counts, so that little is lost when pixels are rounded.

    Args:
        judge: Loss and margin of pixels, per image.
        images: Clean pixels, (n, c, h, w) in [0, 1].
        start: First perturbation, same shape.
        norm: Norm of the ball.
        radius: Radius of the ball, in pixel units of [0, 1].
        steps: Gradient steps, at least 1.

    Raises:
        InvalidInput: If ``steps`` is below 1.
    """
    if steps < 1:
        raise InvalidInput(f"expected steps >= 1, got {steps}")
    pixels = last = into_ball(images, start, norm, radius)
    values, margins, gradient = _judged(judge, pixels)
    kept = _Kept(pixels, values, margins, lengths_of(gradient))
    best, best_values, best_gradient = pixels, values, gradient
    state = Checkpoints(torch.zeros_like(values), values.clone(), torch.ones_like(values) > 0)
    size = torch.full_like(values, 2 * radius)
    due, previous = checkpoints(steps), 0
    for step in range(1, steps + 1):
        ahead = _step(pixels, last, gradient, images, norm, radius, size, step == 1)
        last, pixels, before = pixels, ahead, values
        values, margins, gradient = _judged(judge, pixels)
        kept.take(pixels, values, margins, lengths_of(gradient))
        state.improved += (values > before).to(values)
        better = values > best_values
        best, best_gradient = (
            _where(better, pixels, best),
            _where(better, gradient, best_gradient),
        )
        best_values = torch.where(better, values, best_values)
        if step in due:
            halved = state.halve(step - previous, best_values)
            previous = step
            size = torch.where(halved, size / 2, size)
            pixels, gradient = (
                _where(halved, best, pixels),
                _where(halved, best_gradient, gradient),
            )
    return Ascent(kept.pixels, kept.values, kept.gradient_norms, kept.margins)


@dataclass
class _Kept:
    """The iterate of each image that the search would give now."""

    pixels: Tensor
    values: Tensor
    margins: Tensor
    gradient_norms: Tensor

    def take(self, pixels: Tensor, values: Tensor, margins: Tensor, norms: Tensor) -> None:
        """Keep these where they are better."""
        reached = margins <= 0
        better = torch.where(
            reached,
            margins < self.margins.clamp(max=0) + (self.margins > 0),
            (self.margins > 0) & (values > self.values),
        )
        self.pixels = _where(better, pixels, self.pixels)
        self.values = torch.where(better, values, self.values)
        self.margins = torch.where(better, margins, self.margins)
        self.gradient_norms = torch.maximum(self.gradient_norms, norms)


def _step(
    pixels: Tensor,
    last: Tensor,
    gradient: Tensor,
    images: Tensor,
    norm: Norm,
    radius: float,
    size: Tensor,
    is_first: bool,
) -> Tensor:
    """Equation 2: a projected step, mixed with the direction of the last one."""
    moved = pixels + size.view(-1, 1, 1, 1) * steepest(gradient, norm)
    ahead = into_ball(images, moved - images, norm, radius)
    if is_first:
        return ahead
    mixed = pixels + MOMENTUM * (ahead - pixels) + (1 - MOMENTUM) * (pixels - last)
    return into_ball(images, mixed - images, norm, radius)


def _judged(judge: Judge, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    leaf = pixels.detach().requires_grad_(True)
    values, margins = judge(leaf)
    (gradient,) = torch.autograd.grad(values.sum(), leaf)
    return values.detach(), margins.detach(), gradient


def _where(chosen: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(chosen.view(-1, 1, 1, 1), new, old)
