"""Brightness, contrast, saturation, hue and greyscale as one matrix per image.

In YIQ (luma Y, chroma I and Q) every one of them is simple: brightness scales all three,
saturation scales I and Q, hue turns I and Q, greyscale sets them to 0, contrast scales the
distance from the mean luma. As maps they commute, so the random order in which the usual
implementations apply them does not matter (but for their clipping to [0, 1] in between).
"""

import math
from dataclasses import dataclass

import torch

from embedkit.encoders.encoder import UnitPixels
from embedkit.errors import InvalidInput
from embedkit.perturb.augmentation import augmentations
from embedkit.perturb.draw import Draw, Range, check_finite, check_probability

__all__ = ["Colour"]

# Rows Y, I, Q in terms of R, G, B (NTSC); grey has no chroma, so I and Q add up to 0.
_TO_YIQ = torch.tensor(
    [
        [0.299, 0.587, 0.114],
        [0.595716, -0.274453, -0.321263],
        [0.211456, -0.522591, 0.311135],
    ],
    dtype=torch.float64,
)

_LUMA = _TO_YIQ[0].expand(3, 3)
# A quarter turn from I towards -Q: the direction red, yellow, green, as hue turns in HSV.
_QUARTER = torch.stack([torch.zeros(3, dtype=torch.float64), _TO_YIQ[2], -_TO_YIQ[1]])

# Maps of RGB: to its luma, to its chroma, and to its chroma turned by a quarter.
_BASIS = torch.stack(
    [
        _LUMA,
        torch.eye(3, dtype=torch.float64) - _LUMA,
        torch.linalg.solve(_TO_YIQ, _QUARTER),
    ]
)


@augmentations.register("colour")
@dataclass(frozen=True)
class Colour:
    """Colour jitter and random greyscale; grey images get brightness and contrast alone.

    Attributes:
        brightness: Half-width of the factor's range around 1, at least 0.
        contrast: The same for the distance from the image's mean luma.
        saturation: The same for the chroma.
        hue: Largest turn of the chroma either way, in full turns, 0 to 0.5.
        greyscale: Probability of losing all colour, per image, whatever ``p`` decides.
        p: Probability of the jitter, per image.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    greyscale: float = 0.2
    p: float = 0.8

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_probability("greyscale", self.greyscale)
        check_probability("p", self.p)
        check_finite(
            brightness=self.brightness, contrast=self.contrast, saturation=self.saturation
        )
        if min(self.brightness, self.contrast, self.saturation) < 0 or not 0 <= self.hue <= 0.5:
            raise InvalidInput(
                "expected brightness, contrast, saturation of at least 0 and hue in [0, 0.5], "
                f"got {self.brightness}, {self.contrast}, {self.saturation}, {self.hue}"
            )

    def __call__(self, pixels: UnitPixels, generator: torch.Generator) -> UnitPixels:
        """Return the images with other colours; see ``Augmentation``.

        Raises:
            InvalidInput: If the images have neither 1 nor 3 channels.
        """
        draw = Draw(pixels, generator)
        b, c, h, w = pixels.shape
        if c not in (1, 3):
            raise InvalidInput(f"expected images of 1 or 3 channels, got {c}")
        chosen = draw.chance(self.p)
        brightness = torch.where(chosen, draw.uniform(_around(self.brightness)), 1)
        contrast = torch.where(chosen, draw.uniform(_around(self.contrast)), 1)
        scale = brightness * contrast
        mean = pixels.mean(dim=(2, 3))
        if c == 1:
            offset = (brightness - scale) * mean[:, 0]
            scaled = pixels * scale.view(b, 1, 1, 1)
            return scaled.add_(offset.view(b, 1, 1, 1)).clamp_(0, 1)
        saturation = torch.where(chosen, draw.uniform(_around(self.saturation)), 1)
        saturation = torch.where(draw.chance(self.greyscale), 0, saturation)
        turn = torch.where(chosen, draw.uniform((-self.hue, self.hue)), 0) * (2 * math.pi)
        parts = [torch.ones_like(scale), turn.cos() * saturation, turn.sin() * saturation]
        basis = _BASIS.to(pixels.device, pixels.dtype)
        matrix = torch.tensordot(torch.stack(parts, dim=1) * scale.unsqueeze(1), basis, dims=1)
        offset = (brightness - scale) * (mean @ basis[0, 0])
        # Not baddbmm: it would first write the offset out for every pixel.
        changed = torch.bmm(matrix, pixels.reshape(b, c, h * w)).add_(offset.view(b, 1, 1))
        return changed.clamp_(0, 1).view(b, c, h, w)


def _around(half_width: float) -> Range:
    return max(0.0, 1 - half_width), 1 + half_width
