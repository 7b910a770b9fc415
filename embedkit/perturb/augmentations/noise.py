"""Gaussian noise with a strength of its own for each image."""

from dataclasses import dataclass

import torch

from embedkit.encoders.encoder import UnitPixels
from embedkit.perturb.augmentation import augmentations
from embedkit.perturb.draw import Draw, Range, check_probability, check_range

__all__ = ["Noise"]


@augmentations.register("noise")
@dataclass(frozen=True)
class Noise:
    """Add independent Gaussian noise to every value and clip to [0, 1].

    Attributes:
        std: Standard deviation, in units of the full range.
        p: Probability, per image.
    """

    std: Range = (0.0, 0.1)
    p: float = 0.5

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("std", self.std, 0)
        check_probability("p", self.p)

    def __call__(self, pixels: UnitPixels, generator: torch.Generator) -> UnitPixels:
        """Return the images with noise; see ``Augmentation``."""
        draw = Draw(pixels, generator)
        std = torch.where(draw.chance(self.p), draw.uniform(self.std), 0)
        return draw.noise(normal=True).mul_(std.view(-1, 1, 1, 1)).add_(pixels).clamp_(0, 1)
