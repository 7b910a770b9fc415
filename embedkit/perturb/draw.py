"""Random numbers for a batch of images, one per image, and the checks of their ranges."""

import math
from typing import Annotated

import torch

from embedkit.encoders.encoder import UnitPixels
from embedkit.errors import InvalidInput

__all__ = [
    "Draw",
    "PerImage",
    "Range",
    "check_finite",
    "check_probability",
    "check_range",
    "window_sides",
]

PerImage = Annotated[torch.Tensor, "b"]
"""One number per image."""

Range = tuple[float, float]
"""Lowest and highest value of a uniform draw."""


class Draw:
    """Random numbers for the images of one batch, of the batch's dtype and on its device.

    Args:
        pixels: The batch, (b, c, h, w), float32 or float64.
        generator: Their source; on the batch's device, or on the CPU at the cost of a copy.

    Raises:
        InvalidInput: If the pixels have another rank or dtype.
    """

    def __init__(self, pixels: UnitPixels, generator: torch.Generator) -> None:
        if pixels.ndim != 4 or pixels.dtype not in (torch.float32, torch.float64):
            raise InvalidInput(
                "expected float32 or float64 pixels (b, c, h, w) in [0, 1], "
                f"got {pixels.dtype} {tuple(pixels.shape)}"
            )
        self._pixels = pixels
        self._generator = generator

    def uniform(self, bounds: Range) -> PerImage:
        """One number per image, uniform between the bounds."""
        low, high = bounds
        drawn = torch.rand(
            len(self._pixels),
            generator=self._generator,
            device=self._generator.device,
            dtype=self._pixels.dtype,
        )
        return drawn.mul_(high - low).add_(low).to(self._pixels.device)

    def chance(self, probability: float) -> PerImage:
        """One boolean per image, true with the given probability."""
        return self.uniform((0.0, 1.0)) < probability

    def below(self, count: int) -> PerImage:
        """One whole number per image, 0 to ``count - 1``, int64."""
        # The highest float below 1 times a count may round up to the count.
        return (self.uniform((0.0, 1.0)) * count).long().clamp_(max=count - 1)

    def beta(self, alpha: float) -> PerImage:
        """One number in [0, 1] per image from the Beta distribution with both parameters so."""
        shape = torch.full(
            (2, len(self._pixels)), alpha, dtype=torch.float64, device=self._generator.device
        )
        # As gamma variates; torch's public sampler takes no generator. At a small alpha both
        # may come out as 0: then it is either end.
        first, second = torch._standard_gamma(shape, generator=self._generator)
        total = first + second
        share = torch.where(total > 0, first / total.where(total > 0, 1), 0.0)
        return share.to(self._pixels)

    def partners(self) -> PerImage:
        """Another image for each image, as positions in the batch: a random permutation."""
        return self.uniform((0.0, 1.0)).argsort()

    def noise(self, *, normal: bool) -> UnitPixels:
        """One number per value of the batch: standard normal, or uniform in [0, 1)."""
        fill = torch.randn if normal else torch.rand
        drawn = fill(
            self._pixels.shape,
            generator=self._generator,
            device=self._generator.device,
            dtype=self._pixels.dtype,
        )
        return drawn.to(self._pixels.device)


def window_sides(
    draw: Draw, size: tuple[int, int], area: Range, ratio: Range
) -> tuple[PerImage, PerImage]:
    """Draw the sides of one rectangle per image, as fractions of height and width in (0, 1].

    The area is uniform. Width over height is log-uniform over the part of ``ratio`` that fits
    into the image with this area; where none fits, it is the nearest that does. (The usual
    rejection sampling needs a loop, and prefers small areas because they fit more often.)

    Args:
        draw: The batch's random numbers.
        size: Height and width in pixels.
        area: Fractions of the image's area.
        ratio: Width over height, in pixels.
    """
    height, width = size
    covered = draw.uniform(area)
    narrow, wide = covered * width / height, width / height / covered
    low = torch.log(narrow.clamp(min=ratio[0]))
    high = torch.log(wide.clamp(max=ratio[1]))
    drawn = torch.lerp(low, high, draw.uniform((0.0, 1.0))).exp_()
    fitting = torch.minimum(torch.maximum(drawn, narrow), wide)
    across = (covered * fitting * height / width).sqrt_().clamp_(max=1)
    return (covered / across).clamp_(max=1), across


def check_probability(noun: str, value: float) -> None:
    """Raise InvalidInput unless ``value`` lies in [0, 1]."""
    if not 0 <= value <= 1:
        raise InvalidInput(f"expected {noun} in [0, 1], got {value}")


def check_range(noun: str, bounds: Range, low: float, high: float = math.inf) -> None:
    """Raise InvalidInput unless ``low <= bounds[0] <= bounds[1] <= high``, all finite."""
    if not (low <= bounds[0] <= bounds[1] <= high and math.isfinite(bounds[1])):
        limit = f"finite and of at least {low:g}"
        if high < math.inf:
            limit = f"between {low:g} and {high:g}"
        raise InvalidInput(f"expected {noun} as (lowest, highest) {limit}, got {bounds}")


def check_finite(**values: float) -> None:
    """Raise InvalidInput unless every value, named by its argument, is finite."""
    for noun, value in values.items():
        if not math.isfinite(value):
            raise InvalidInput(f"expected a finite {noun}, got {value}")
