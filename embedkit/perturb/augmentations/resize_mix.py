"""ResizeMix: Qin et al., Mixing Data with Preserved Object Information, 2020."""

from dataclasses import dataclass

import torch
from torch.nn import functional

from embedkit.encoders.encoder import UnitPixels
from embedkit.errors import InvalidInput
from embedkit.perturb.augmentation import Shares, augmentations
from embedkit.perturb.draw import Draw, Range, check_probability, check_range
from embedkit.perturb.mixing import Box, mixed_targets

__all__ = ["ResizeMix"]


@augmentations.register("resize_mix")
@dataclass(frozen=True)
class ResizeMix:
    """Put all of another image, made small, into each; the label follows its area (eq. 2 to 4).

    Unlike a rectangle cut out, the small image surely shows what its label says.

    Attributes:
        scale: Side of the small image as a share of the image's, in (0, 1].
        p: Probability, per image.
    """

    scale: Range = (0.1, 0.8)
    p: float = 0.5

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_probability("p", self.p)
        check_range("scale", self.scale, 0, 1)
        if self.scale[0] <= 0:
            raise InvalidInput(f"expected a scale above 0, got {self.scale}")

    def __call__(self, pixels: UnitPixels, generator: torch.Generator) -> UnitPixels:
        """Return the images mixed; see ``Augmentation``."""
        return self.mix(pixels, pixels.new_empty(len(pixels), 0), generator)[0]

    def mix(
        self, pixels: UnitPixels, targets: Shares, generator: torch.Generator
    ) -> tuple[UnitPixels, Shares]:
        """Return images and targets mixed; see ``Mixing``."""
        draw = Draw(pixels, generator)
        if not len(pixels):
            return pixels.clone(), targets
        partner, chosen, scale = draw.partners(), draw.chance(self.p), draw.uniform(self.scale)
        sides: list[torch.Tensor] = []
        for length in pixels.shape[2:]:
            size = (scale * length).round().clamp_(1, length)
            start = (draw.uniform((0.0, 1.0)) * (length - size + 1)).floor()
            sides += [start, start + torch.where(chosen, size, 0)]
        box = Box(*(side.long() for side in sides))
        mixed = torch.where(box.inside(pixels), _shrunk(pixels[partner], box), pixels)
        return mixed, mixed_targets(targets, partner, box.share(pixels))


def _shrunk(pixels: UnitPixels, box: Box) -> UnitPixels:
    """Every image made as small as its box and put there; anything elsewhere.

    Each place takes the mean of 2 x 2 bilinear samples of the patch of image that it stands
    for: down to half the size that is all of the patch, below it is a part.
    """
    height, width = pixels.shape[2:]
    rows = _sources(box.top, box.bottom, height, pixels)
    columns = _sources(box.left, box.right, width, pixels)
    grid = torch.stack(
        [
            columns.unsqueeze(1).expand(-1, 2 * height, -1),
            rows.unsqueeze(2).expand(-1, -1, 2 * width),
        ],
        dim=3,
    )
    fine = functional.grid_sample(
        pixels, grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return functional.avg_pool2d(fine, 2).clamp_(0, 1)


def _sources(
    start: torch.Tensor, end: torch.Tensor, length: int, pixels: UnitPixels
) -> torch.Tensor:
    """Where in the image, in [-1, 1], each of ``2 * length`` half pixels comes from."""
    place = (torch.arange(2 * length, device=pixels.device) + 0.5) / 2
    span = (end - start).clamp(min=1).unsqueeze(1)
    return ((place - start.unsqueeze(1)) / span * 2 - 1).to(pixels.dtype)
