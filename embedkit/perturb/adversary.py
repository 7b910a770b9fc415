"""Adversary: looks for the small change of each image that harms most, in very few steps.

For training, where a search is made at every step and need not be exhaustive: it keeps the last
iterate and not the best one, which saves a pass. ``gradient.ascend`` is for measuring.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from embedkit.encoders.encoder import UnitPixels
from embedkit.errors import InvalidInput
from embedkit.perturb.gradient import Norm, PixelLoss, project, random_start, steepest

__all__ = ["Adversary"]

_PROBE = 0.1
"""How far from the image the power iteration takes its gradients, as a share of the radius:
short enough for a second-order view of the loss (eq. 7 of VAT), long enough for float32."""


@dataclass(frozen=True)
class Adversary:
    """Gradient ascent in a ball around each image.

    Attributes:
        radius_255: Radius of the ball in steps of 1/255, above 0.
        steps: Gradients taken per image, at least 1.
        norm: ``linf`` (largest change of a value) or ``l2`` (Euclidean length of the change).
        search: ``ascent`` from a random place in the ball: FGSM (Wong et al., 2020) with one
            step, PGD (Madry et al., 2018) with more. ``power``: the direction in which the loss
            curves most, by power iteration (Miyato et al., 2018, eq. 9 to 11), at the full
            radius; for losses that are least at the image itself, in ``l2`` alone.
    """

    radius_255: float
    steps: int = 1
    norm: Norm = "linf"
    search: Literal["ascent", "power"] = "ascent"

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 < self.radius_255 < float("inf"):
            raise InvalidInput(
                f"expected an adversary's radius_255 above 0, got {self.radius_255}"
            )
        if self.steps < 1:
            raise InvalidInput(f"expected an adversary's steps of at least 1, got {self.steps}")
        if self.norm not in ("linf", "l2"):
            raise InvalidInput(f"expected the norm 'linf' or 'l2', got {self.norm!r}")
        if self.search == "power" and self.norm != "l2":
            raise InvalidInput(f"expected the norm l2 for power iteration, got {self.norm!r}")

    @property
    def radius(self) -> float:
        """The radius in pixel units of [0, 1]."""
        return self.radius_255 / 255

    def start(self, pixels: UnitPixels, generator: torch.Generator) -> Tensor:
        """Where the search begins, (n, c, h, w): a change in the ball, or a unit direction."""
        shape = tuple(pixels.shape)
        if self.search == "power":
            drawn = torch.randn(shape, generator=generator, device=generator.device)
            return steepest(drawn, "l2").to(pixels)
        return random_start(shape, self.norm, self.radius, generator).to(pixels)

    def find(self, loss: PixelLoss, pixels: UnitPixels, start: Tensor) -> UnitPixels:
        """Return changed images, in the ball and in [0, 1], without gradient.

        Args:
            loss: What is raised, per image; images must not depend on each other.
            pixels: (n, c, h, w) in [0, 1].
            start: What ``start`` gave.
        """
        if self.search == "power":
            change = self.radius * self._curved(loss, pixels, start)
        else:
            change = self._climbed(loss, pixels, start)
        return (pixels + change).clamp(0, 1).detach()

    def _climbed(self, loss: PixelLoss, pixels: UnitPixels, start: Tensor) -> Tensor:
        # 1.25 radii from a random start, and 2.5 shared out over several steps, reach every
        # edge of the ball; the papers' step sizes.
        length = min(1.25, 2.5 / self.steps) * self.radius
        change = start
        for _ in range(self.steps):
            gradient = _gradient(loss, (pixels + change).clamp(0, 1))
            change = project(
                change + length * steepest(gradient, self.norm), self.norm, self.radius
            )
        return change

    def _curved(self, loss: PixelLoss, pixels: UnitPixels, start: Tensor) -> Tensor:
        direction = start
        for _ in range(self.steps):
            gradient = _gradient(loss, pixels + _PROBE * self.radius * direction)
            direction = steepest(gradient, "l2")
        return direction


def _gradient(loss: PixelLoss, pixels: Tensor) -> Tensor:
    """Gradient of every image's loss in its own pixels; no parameter gets any."""
    with torch.enable_grad():
        leaf = pixels.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(loss(leaf).sum(), leaf)
    return gradient
