"""Mixing: where the other image goes, and what that does to the targets."""

from typing import NamedTuple

import torch

from embedkit.encoders.encoder import UnitPixels
from embedkit.perturb.augmentation import Shares
from embedkit.perturb.draw import Draw, PerImage

__all__ = ["Box", "centred_box", "mixed_targets"]


class Box(NamedTuple):
    """One rectangle of whole pixels per image; rows and columns are half-open, (b,) int64."""

    top: torch.Tensor
    bottom: torch.Tensor
    left: torch.Tensor
    right: torch.Tensor

    def inside(self, pixels: UnitPixels) -> torch.Tensor:
        """Which pixels lie in it, (b, 1, h, w) bool."""
        height, width = pixels.shape[2:]
        y = torch.arange(height, device=pixels.device).view(1, -1, 1)
        x = torch.arange(width, device=pixels.device).view(1, 1, -1)
        top, bottom, left, right = (side.view(-1, 1, 1) for side in self)
        return (((y >= top) & (y < bottom)) & ((x >= left) & (x < right))).unsqueeze(1)

    def share(self, pixels: UnitPixels) -> PerImage:
        """How much of the image it covers, in [0, 1]."""
        area = (self.bottom - self.top) * (self.right - self.left)
        return area.to(pixels.dtype) / (pixels.shape[2] * pixels.shape[3])


def centred_box(draw: Draw, pixels: UnitPixels, side: PerImage) -> Box:
    """A rectangle of the image's shape around a uniform centre, cut off at the border.

    Args:
        draw: Source of the centres.
        pixels: (b, c, h, w).
        side: Of the rectangle as a share of the image's, before it is cut, in [0, 1].
    """
    ends = []
    for length in pixels.shape[2:]:
        half = (side * length).trunc() / 2
        centre = draw.below(length)
        ends += [(centre - half.floor()), (centre - half.floor() + 2 * half)]
        ends[-2:] = [end.clamp(0, length).long() for end in ends[-2:]]
    return Box(*ends)


def mixed_targets(targets: Shares, partner: PerImage, share: PerImage) -> Shares:
    """Targets of which a ``share`` in [0, 1] comes from the partner."""
    weight = share.to(targets.dtype).unsqueeze(1)
    return torch.lerp(targets, targets[partner], weight)
