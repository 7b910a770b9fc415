"""Randomized quantization: Wu et al., ICCV 2023, a generic augmentation for any data."""

from dataclasses import dataclass

import torch

from embedkit.encoders.encoder import UnitPixels
from embedkit.errors import InvalidInput
from embedkit.perturb.augmentation import augmentations
from embedkit.perturb.draw import Draw, check_probability

__all__ = ["RandomizedQuantization"]


@augmentations.register("randomized_quantization")
@dataclass(frozen=True)
class RandomizedQuantization:
    """Keep only which of a few random intervals each value lies in, per channel (section 3.2).

    The range of a channel is cut at random places; all values of an interval become one value
    that is drawn from it.

    Attributes:
        intervals: Of each channel of each image, at least 1.
        p: Probability, per image.
    """

    intervals: int = 8
    p: float = 0.5

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_probability("p", self.p)
        if self.intervals < 1:
            raise InvalidInput(f"expected at least 1 interval, got {self.intervals}")

    def __call__(self, pixels: UnitPixels, generator: torch.Generator) -> UnitPixels:
        """Return the images quantized; see ``Augmentation``."""
        draw = Draw(pixels, generator)
        b, c, h, w = pixels.shape
        chosen = draw.chance(self.p).view(-1, 1, 1, 1)
        if not b:
            return pixels.clone()
        values = pixels.reshape(b * c, h * w)
        low, high = values.amin(dim=1, keepdim=True), values.amax(dim=1, keepdim=True)
        cuts = torch.lerp(low, high, self._uniform(pixels, generator, self.intervals - 1))
        ends = torch.cat([low, cuts.sort(dim=1).values, high], dim=1)
        level = torch.lerp(
            ends[:, :-1], ends[:, 1:], self._uniform(pixels, generator, self.intervals)
        )
        interval = torch.searchsorted(ends[:, 1:-1].contiguous(), values.contiguous())
        quantized = level.gather(1, interval).view(b, c, h, w).clamp_(0, 1)
        return torch.where(chosen, quantized, pixels)

    def _uniform(
        self, pixels: UnitPixels, generator: torch.Generator, count: int
    ) -> torch.Tensor:
        """Uniform numbers in [0, 1) for every channel of every image, (b * c, count)."""
        rows = pixels.shape[0] * pixels.shape[1]
        drawn = torch.rand(
            rows, count, generator=generator, device=generator.device, dtype=pixels.dtype
        )
        return drawn.to(pixels.device)
