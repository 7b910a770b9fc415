"""The operations that RandAugment and AutoAugment choose from, on a whole batch at once.

Every image has an operation and a strength of its own; images with the same operation are
changed together. Strengths are what the published policies mean by them: a slope, a fraction of
the width, an angle, a factor, a number of bits, a threshold.
"""

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional

from embedkit.encoders.encoder import UnitPixels

__all__ = ["OPERATIONS", "Choices", "apply_operations"]

Choices = Annotated[Tensor, "b"]
"""Index into ``OPERATIONS`` of each image, int64."""

# The grey that the published code fills with, (128, 128, 128).
_FILL = 128 / 255

_LUMA = (0.299, 0.587, 0.114)


def apply_operations(pixels: UnitPixels, chosen: Choices, strength: Tensor) -> UnitPixels:
    """Apply to every image its operation.

    Args:
        pixels: (b, c, h, w) in [0, 1].
        chosen: Which operation of ``OPERATIONS``, (b,).
        strength: What it does with it, (b,): see the operation.

    Returns:
        New images in [0, 1].
    """
    order = chosen.argsort()
    changed = torch.empty_like(pixels)
    start = 0
    # One look at the counts, instead of one per operation, keeps a GPU busy.
    for index, count in enumerate(torch.bincount(chosen, minlength=len(OPERATIONS)).tolist()):
        if not count:
            continue
        rows = order[start : start + count]
        operation = _FUNCTIONS[index]
        changed[rows] = operation(pixels[rows], strength[rows].view(-1, 1, 1, 1)).clamp_(0, 1)
        start += count
    return changed


def _identity(pixels: Tensor, strength: Tensor) -> Tensor:
    return pixels.clone()


def _shear_x(pixels: Tensor, strength: Tensor) -> Tensor:
    """Row y moves left by ``strength * y``, counted from the top left corner."""
    return _moved(pixels, lambda x, y: (x + strength * (y + 0.5 * pixels.shape[2]), y))


def _shear_y(pixels: Tensor, strength: Tensor) -> Tensor:
    """Column x moves up by ``strength * x``, counted from the top left corner."""
    return _moved(pixels, lambda x, y: (x, y + strength * (x + 0.5 * pixels.shape[3])))


def _translate_x(pixels: Tensor, strength: Tensor) -> Tensor:
    """Right by whole pixels: ``strength`` is a fraction of the width."""
    shift = (strength * pixels.shape[3]).trunc()
    return _moved(pixels, lambda x, y: (x - shift, y))


def _translate_y(pixels: Tensor, strength: Tensor) -> Tensor:
    """Down by whole pixels: ``strength`` is a fraction of the height."""
    shift = (strength * pixels.shape[2]).trunc()
    return _moved(pixels, lambda x, y: (x, y - shift))


def _rotate(pixels: Tensor, strength: Tensor) -> Tensor:
    """Counter-clockwise about the centre by ``strength`` degrees."""
    angle = torch.deg2rad(strength)
    sine, cosine = angle.sin(), angle.cos()
    return _moved(pixels, lambda x, y: (cosine * x - sine * y, sine * x + cosine * y))


def _brightness(pixels: Tensor, strength: Tensor) -> Tensor:
    """Times ``1 + strength``."""
    return pixels * (1 + strength)


def _colour(pixels: Tensor, strength: Tensor) -> Tensor:
    """Distance from the own luma times ``1 + strength``."""
    return _away(pixels, _luma(pixels), strength)


def _contrast(pixels: Tensor, strength: Tensor) -> Tensor:
    """Distance from the image's mean luma times ``1 + strength``."""
    return _away(pixels, _luma(pixels).mean(dim=(1, 2, 3), keepdim=True), strength)


def _sharpness(pixels: Tensor, strength: Tensor) -> Tensor:
    """Distance from the smoothed image times ``1 + strength``; the border stays as it is."""
    if min(pixels.shape[2:]) < 3:
        return pixels.clone()
    # All nine neighbours weigh 1 and the centre 5, of 13: sums take a fifth of the time of
    # a depthwise convolution.
    rows = pixels[:, :, :-2] + pixels[:, :, 1:-1] + pixels[:, :, 2:]
    nine = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    smooth = pixels.clone()
    smooth[:, :, 1:-1, 1:-1] = (nine + 4 * pixels[:, :, 1:-1, 1:-1]) / 13
    return _away(pixels, smooth, strength)


def _posterize(pixels: Tensor, strength: Tensor) -> Tensor:
    """Only the first ``strength`` bits of every value."""
    levels = torch.exp2(strength)
    return (pixels * levels).floor().minimum(levels - 1) / levels


def _solarize(pixels: Tensor, strength: Tensor) -> Tensor:
    """Values from ``strength`` upwards are inverted."""
    return torch.where(pixels >= strength, 1 - pixels, pixels)


def _invert(pixels: Tensor, strength: Tensor) -> Tensor:
    return 1 - pixels


def _auto_contrast(pixels: Tensor, strength: Tensor) -> Tensor:
    """Every channel is stretched to the full range; a flat one stays."""
    low, high = pixels.amin(dim=(2, 3), keepdim=True), pixels.amax(dim=(2, 3), keepdim=True)
    span = high - low
    return torch.where(span > 0, (pixels - low) / span.where(span > 0, 1), pixels)


def _equalize(pixels: Tensor, strength: Tensor) -> Tensor:
    """Every channel gets an even histogram of 256 levels, as Pillow does it."""
    b, c, h, w = pixels.shape
    # Channel k of the batch counts from 256 k up, so that one count does for all.
    channel = torch.arange(b * c, device=pixels.device).unsqueeze(1)
    levels = (pixels * 255).round().to(torch.int32).reshape(b * c, h * w) + 256 * channel
    counts = torch.bincount(levels.flatten(), minlength=256 * b * c).view(b * c, 256)
    # Pillow's step: all pixels but those of the highest level that occurs, over 255.
    top = levels.amax(dim=1, keepdim=True) - 256 * channel
    step = (h * w - counts.gather(1, top)) // 255
    before = counts.cumsum(dim=1) - counts
    even = ((before + step // 2) // step.clamp(min=1)).clamp_(max=255)
    same = torch.arange(256, device=pixels.device)
    table = torch.where(step > 0, even, same).to(pixels.dtype) / 255
    return table.flatten()[levels].view(b, c, h, w)


_FUNCTIONS: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    _identity,
    _shear_x,
    _shear_y,
    _translate_x,
    _translate_y,
    _rotate,
    _brightness,
    _colour,
    _contrast,
    _sharpness,
    _posterize,
    _solarize,
    _invert,
    _auto_contrast,
    _equalize,
)

OPERATIONS = tuple(function.__name__[1:] for function in _FUNCTIONS)
"""Names of the operations; ``colour`` is what the papers call Color."""


def _moved(pixels: Tensor, source: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Tensor:
    """Take every pixel from another place, given in pixels from the centre; grey outside."""
    height, width = pixels.shape[2:]
    steps = [
        torch.arange(n, device=pixels.device, dtype=pixels.dtype) + 0.5 - n / 2
        for n in (height, width)
    ]
    # (b, 1, h, w), so that strengths (b, 1, 1, 1) meet positions.
    x, y = source(steps[1].view(1, 1, 1, -1), steps[0].view(1, 1, -1, 1))
    shape = (len(pixels), 1, height, width)
    grid = torch.stack([x.expand(shape) * (2 / width), y.expand(shape) * (2 / height)], dim=4)
    moved = functional.grid_sample(
        pixels - _FILL, grid[:, 0], mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return moved + _FILL


def _away(pixels: Tensor, anchor: Tensor, strength: Tensor) -> Tensor:
    return anchor + (1 + strength) * (pixels - anchor)


def _luma(pixels: Tensor) -> Tensor:
    """(b, 1, h, w); images without three channels are grey already."""
    if pixels.shape[1] != 3:
        return pixels.mean(dim=1, keepdim=True)
    weights = pixels.new_tensor(_LUMA).view(1, 3, 1, 1)
    return (pixels * weights).sum(dim=1, keepdim=True)
