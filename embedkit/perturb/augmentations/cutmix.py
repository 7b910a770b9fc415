"""CutMix: Yun et al., Regularization Strategy to Train Strong Classifiers, ICCV 2019."""

from dataclasses import dataclass

import torch

from embedkit.encoders.encoder import UnitPixels
from embedkit.errors import InvalidInput
from embedkit.perturb.augmentation import Shares, augmentations
from embedkit.perturb.draw import Draw, check_finite, check_probability
from embedkit.perturb.mixing import centred_box, mixed_targets

__all__ = ["CutMix"]


@augmentations.register("cutmix")
@dataclass(frozen=True)
class CutMix:
    """Put a rectangle of another image of the batch into each; the label follows its area.

    The rectangle has the image's shape, and a Beta-distributed area before it is cut off at the
    border (eq. 1 and 2).

    Attributes:
        alpha: Of the Beta distribution, above 0; 1 is uniform.
        p: Probability, per image.
    """

    alpha: float = 1.0
    p: float = 0.5

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
        partner, chosen = draw.partners(), draw.chance(self.p)
        side = (1 - draw.beta(self.alpha)).clamp_(min=0).sqrt_()
        box = centred_box(draw, pixels, torch.where(chosen, side, 0))
        mixed = torch.where(box.inside(pixels), pixels[partner], pixels)
        return mixed, mixed_targets(targets, partner, box.share(pixels))
