"""Random erasing (Zhong et al., 2020): a rectangle of each image is lost."""

from dataclasses import dataclass
from typing import Literal

import torch

from embedkit.encoders.encoder import UnitPixels
from embedkit.errors import InvalidInput
from embedkit.perturb.augmentation import augmentations
from embedkit.perturb.draw import Draw, Range, check_probability, check_range, window_sides

__all__ = ["Erase"]


@augmentations.register("erase")
@dataclass(frozen=True)
class Erase:
    """Overwrite one random rectangle of whole pixels per image.

    Attributes:
        area: Share of the image's area that is lost, before rounding to whole pixels.
        ratio: Width over height of the rectangle, drawn log-uniformly.
        fill: ``mean`` of the image per channel, uniform ``noise``, or ``zero``.
        p: Probability, per image.
    """

    area: Range = (0.02, 0.33)
    ratio: Range = (0.3, 3.3)
    fill: Literal["mean", "noise", "zero"] = "mean"
    p: float = 0.5

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("area", self.area, 0, 1)
        check_range("ratio", self.ratio, 0)
        check_probability("p", self.p)
        if min(self.area[0], self.ratio[0]) <= 0:
            raise InvalidInput(
                f"expected area and ratio above 0, got {self.area}, {self.ratio}"
            )

    def __call__(self, pixels: UnitPixels, generator: torch.Generator) -> UnitPixels:
        """Return the images with a rectangle overwritten; see ``Augmentation``."""
        draw = Draw(pixels, generator)
        height, width = pixels.shape[2:]
        down, across = window_sides(draw, (height, width), self.area, self.ratio)
        rows = _span(draw, down, height).unsqueeze(2)
        columns = _span(draw, across, width).unsqueeze(1)
        chosen = draw.chance(self.p).view(-1, 1, 1)
        return torch.where(
            (rows & columns & chosen).unsqueeze(1), self._fill(draw, pixels), pixels
        )

    def _fill(self, draw: Draw, pixels: torch.Tensor) -> torch.Tensor:
        if self.fill == "mean":
            return pixels.mean(dim=(2, 3), keepdim=True)
        if self.fill == "noise":
            return draw.noise(normal=False)
        return torch.zeros_like(pixels)


def _span(draw: Draw, share: torch.Tensor, size: int) -> torch.Tensor:
    """Which of ``size`` positions lie in a run of ``share`` of them, (b, size) boolean."""
    length = (share * size).round().clamp_(min=1)
    # Uniform over the size - length + 1 places where the run fits.
    start = (draw.uniform((0.0, 1.0)) * (size - length + 1)).floor()
    position = torch.arange(size, device=share.device)
    return (position >= start.unsqueeze(1)) & (position < (start + length).unsqueeze(1))
