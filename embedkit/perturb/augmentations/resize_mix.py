"""ResizeMix: Qin et al., Mixing Data with Preserved Object Information, 2020."""

from dataclasses import dataclass

import torch

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
    """Every image made as small as its box and put there; nothing elsewhere."""
    height, width = pixels.shape[2:]
    down = _area_weights(box.top, box.bottom, height, pixels)
    across = _area_weights(box.left, box.right, width, pixels)
    small = torch.matmul(torch.matmul(down.unsqueeze(1), pixels), across.unsqueeze(1).mT)
    return small.clamp_(0, 1)


def _area_weights(
    start: torch.Tensor, end: torch.Tensor, length: int, like: UnitPixels
) -> torch.Tensor:
    """How much each of ``length`` places takes of each of as many rows, (b, length, length).

    A place between start and end stands for ``length / (end - start)`` rows, and takes from
    each as much of it as it covers: a mean over all of them, however small the image gets, in
    half the time of sampling on a grid twice as fine.
    """
    position = torch.arange(length, device=like.device, dtype=like.dtype)
    covers = (length / (end - start).clamp(min=1)).to(like.dtype).view(-1, 1, 1)
    low = (position.view(1, -1, 1) - start.view(-1, 1, 1)) * covers
    overlap = torch.minimum(low + covers, position + 1) - torch.maximum(low, position)
    return overlap.clamp_(min=0) / covers
