"""Mixup: Zhang et al., Beyond Empirical Risk Minimization, ICLR 2018."""

from dataclasses import dataclass

import torch

from embedkit.encoders.encoder import UnitPixels
from embedkit.errors import InvalidInput
from embedkit.perturb.augmentation import Shares, augmentations
from embedkit.perturb.draw import Draw, check_finite, check_probability
from embedkit.perturb.mixing import mixed_targets

__all__ = ["Mixup"]


@augmentations.register("mixup")
@dataclass(frozen=True)
class Mixup:
    """Lay another image of the batch over each, in shares that the label follows (eq. 1).

    Attributes:
        alpha: Of the Beta distribution of the share, above 0; lower mixes less.
        p: Probability, per image.
    """

    alpha: float = 0.2
    p: float = 1.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_probability("p", self.p)
        check_finite(alpha=self.alpha)
        if not self.alpha > 0:
            raise InvalidInput(f"expected alpha above 0, got {self.alpha}")

    def __call__(self, pixels: UnitPixels, generator: torch.Generator) -> UnitPixels:
        """Return the images mixed; see ``Augmentation``."""
        return self.mix(pixels, pixels.new_empty(len(pixels), 0), generator)[0]

    def mix(
        self, pixels: UnitPixels, targets: Shares, generator: torch.Generator
    ) -> tuple[UnitPixels, Shares]:
        """Return images and targets mixed; see ``Mixing``."""
        draw = Draw(pixels, generator)
        partner, share = draw.partners(), draw.beta(self.alpha)
        # The smaller share is the other's: which of the two is which is arbitrary.
        share = torch.where(draw.chance(self.p), torch.minimum(share, 1 - share), 0)
        mixed = torch.lerp(pixels, pixels[partner], share.view(-1, 1, 1, 1))
        return mixed.clamp_(0, 1), mixed_targets(targets, partner, share)
