"""Batch styles standardization: Scalbert et al., 2023, for features that ignore the style."""

from dataclasses import dataclass

import torch

from embedkit.encoders.encoder import UnitPixels
from embedkit.errors import InvalidInput
from embedkit.perturb.augmentation import augmentations
from embedkit.perturb.draw import Draw, Range, check_probability, check_range

__all__ = ["BatchStyles"]


@augmentations.register("batch_styles")
@dataclass(frozen=True)
class BatchStyles:
    """Give all images of a batch the style of one of them, as their low frequencies show it.

    An image's amplitudes at low frequencies are its style, its phases what it shows: the
    amplitudes are replaced by those of one random image (section 3.1). Then negatives cannot be
    told apart by where they come from.

    Attributes:
        share: Of each axis's frequencies, those from 0 up that are replaced; drawn per style.
        styles: Parts of the batch, one after the other, each with a style of its own: as many
            as there are views, so that the views of an image differ in style.
        p: Probability, per image.
    """

    share: Range = (0.02, 0.5)
    styles: int = 2
    p: float = 1.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("share", self.share, 0, 1)
        check_probability("p", self.p)
        if self.styles < 1:
            raise InvalidInput(f"expected at least 1 style, got {self.styles}")

    def __call__(self, pixels: UnitPixels, generator: torch.Generator) -> UnitPixels:
        """Return the images in other styles; see ``Augmentation``."""
        draw = Draw(pixels, generator)
        b, _, h, w = pixels.shape
        if not b:
            return pixels.clone()
        chosen = draw.chance(self.p).view(-1, 1, 1, 1)
        # Every image draws, and the first of each part decides for all of it.
        giver, share = (draw.uniform((0.0, 1.0)) * b).long(), draw.uniform(self.share)
        leader = _leaders(b, self.styles, pixels.device)
        spectrum = torch.fft.rfft2(pixels)
        amplitude = spectrum.abs()
        down = torch.fft.fftfreq(h, device=pixels.device).abs().view(1, 1, -1, 1)
        across = torch.fft.rfftfreq(w, device=pixels.device).view(1, 1, 1, -1)
        # Frequencies reach up to half a wave per pixel.
        limit = share[leader].view(-1, 1, 1, 1) / 2
        is_low = (down <= limit) & (across <= limit)
        style = torch.where(is_low, amplitude[giver[leader]], amplitude)
        styled = torch.fft.irfft2(torch.polar(style, spectrum.angle()), s=(h, w))
        return torch.where(chosen, styled.clamp_(0, 1), pixels)


def _leaders(count: int, parts: int, device: torch.device) -> torch.Tensor:
    """The first image of the part that each image is in."""
    size = max(1, -(-count // parts))
    return torch.arange(count, device=device) // size * size
