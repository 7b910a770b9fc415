"""Random field augmentations: Mansfield et al., 2023."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch.nn import functional

from embedkit.encoders.encoder import UnitPixels
from embedkit.errors import InvalidInput
from embedkit.perturb.augmentation import augmentations
from embedkit.perturb.draw import Draw, check_finite, check_probability

__all__ = ["RandomField"]

Fields = Annotated[torch.Tensor, "b k h w"]
"""Smooth random numbers over the image, mean 0 and standard deviation 1."""


@augmentations.register("random_field")
@dataclass(frozen=True)
class RandomField:
    """Shifts, brightness and contrast that vary smoothly over each image.

    Their strengths at every pixel are Gaussian random fields with the spectrum ``k ** -decay``
    over wave numbers k (section 3.1); where the usual augmentations draw one number per image,
    these draw one per place.

    Attributes:
        shift: Standard deviation of the displacement, as a fraction of each side.
        brightness: Standard deviation of the factor around 1, at least 0.
        contrast: The same for the distance from the image's mean.
        decay: Exponent of the power spectrum, above 0; higher is smoother.
        p: Probability, per image.
    """

    shift: float = 0.05
    brightness: float = 0.2
    contrast: float = 0.2
    decay: float = 6.0
    p: float = 0.5

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_probability("p", self.p)
        check_finite(
            shift=self.shift,
            brightness=self.brightness,
            contrast=self.contrast,
            decay=self.decay,
        )
        strengths = (self.shift, self.brightness, self.contrast)
        if min(strengths) < 0 or self.decay <= 0:
            raise InvalidInput(
                "expected shift, brightness and contrast of at least 0 and decay above 0, "
                f"got {strengths} and {self.decay}"
            )

    def __call__(self, pixels: UnitPixels, generator: torch.Generator) -> UnitPixels:
        """Return the images bent and recoloured; see ``Augmentation``."""
        draw = Draw(pixels, generator)
        chosen = draw.chance(self.p).view(-1, 1, 1, 1)
        if not len(pixels):
            return pixels.clone()
        fields = self._fields(pixels, generator)
        moved = self._moved(pixels, fields[:, :2])
        bright = 1 + self.brightness * fields[:, 2:3]
        steep = 1 + self.contrast * fields[:, 3:4]
        mean = moved.mean(dim=(1, 2, 3), keepdim=True)
        changed = ((moved - mean) * steep + mean) * bright
        return torch.where(chosen, changed.clamp_(0, 1), pixels)

    def _moved(self, pixels: UnitPixels, fields: Fields) -> UnitPixels:
        height, width = pixels.shape[2:]
        rows = (2 * torch.arange(height, device=pixels.device, dtype=pixels.dtype) + 1) / height
        columns = (
            2 * torch.arange(width, device=pixels.device, dtype=pixels.dtype) + 1
        ) / width
        # A fraction f of a side is 2f in [-1, 1].
        x = columns - 1 + 2 * self.shift * fields[:, 0]
        y = rows.unsqueeze(1) - 1 + 2 * self.shift * fields[:, 1]
        grid = torch.stack([x, y], dim=3)
        return functional.grid_sample(
            pixels, grid, mode="bilinear", padding_mode="border", align_corners=False
        )

    def _fields(self, pixels: UnitPixels, generator: torch.Generator) -> Fields:
        """Four fields per image: noise with every wave as strong as the spectrum says."""
        b, _, h, w = pixels.shape
        noise = torch.randn(
            b, 4, h, w, generator=generator, device=generator.device, dtype=pixels.dtype
        ).to(pixels.device)
        down = torch.fft.fftfreq(h, 1 / h, device=pixels.device, dtype=pixels.dtype)
        across = torch.fft.rfftfreq(w, 1 / w, device=pixels.device, dtype=pixels.dtype)
        square = down.square().unsqueeze(1) + across.square()
        # The mean has no wave length; it is taken away.
        amplitude = square.clamp(min=1).pow(-self.decay / 4).masked_fill(square == 0, 0)
        field = torch.fft.irfft2(torch.fft.rfft2(noise) * amplitude, s=(h, w))
        spread = field.square().mean(dim=(2, 3), keepdim=True).sqrt()
        normal: torch.Tensor = field / spread.clamp(min=1e-6)
        return normal
