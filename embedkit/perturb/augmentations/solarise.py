"""Inversion of the bright part of an image."""

from dataclasses import dataclass

import torch

from embedkit.encoders.encoder import UnitPixels
from embedkit.perturb.augmentation import augmentations
from embedkit.perturb.draw import Draw, check_probability

__all__ = ["Solarise"]


@augmentations.register("solarise")
@dataclass(frozen=True)
class Solarise:
    """Invert every value from a threshold upwards, as in BYOL's second view.

    Attributes:
        threshold: Lowest value that is inverted, in [0, 1].
        p: Probability, per image.
    """

    threshold: float = 0.5
    p: float = 0.2

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_probability("threshold", self.threshold)
        check_probability("p", self.p)

    def __call__(self, pixels: UnitPixels, generator: torch.Generator) -> UnitPixels:
        """Return the images partly inverted; see ``Augmentation``."""
        chosen = Draw(pixels, generator).chance(self.p).view(-1, 1, 1, 1)
        return torch.where(chosen & (pixels >= self.threshold), 1 - pixels, pixels)
