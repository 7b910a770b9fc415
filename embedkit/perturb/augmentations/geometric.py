"""Crop, flip, rotation, scaling, shear and shift as one resampling."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional

from embedkit.encoders.encoder import UnitPixels
from embedkit.errors import InvalidInput
from embedkit.perturb.augmentation import augmentations
from embedkit.perturb.draw import (
    Draw,
    Range,
    check_finite,
    check_probability,
    check_range,
    window_sides,
)

__all__ = ["Geometric"]


@augmentations.register("geometric")
@dataclass(frozen=True)
class Geometric:
    """Random resized crop, horizontal flip and affine map, sampled once with bilinear weights.

    The crop window (fractions of a pixel allowed) is turned, sheared, zoomed and moved in the
    source image, and what it covers becomes the whole output image.

    Attributes:
        area: Share of the image's area that the crop covers.
        ratio: Width over height of the crop, drawn log-uniformly.
        flip: Probability of mirroring left and right.
        rotate_deg: Largest rotation either way, in degrees.
        translate: Largest shift either way, as a fraction of each side.
        zoom: Magnification after the crop, drawn log-uniformly; below 1 shrinks the content.
        shear_deg: Largest horizontal shear either way, in degrees, below 90.
        padding: What lies outside the image: its ``border``, its ``reflection`` or ``zeros``.
        p: Probability of everything but the flip, per image.
    """

    area: Range = (0.2, 1.0)
    ratio: Range = (3 / 4, 4 / 3)
    flip: float = 0.5
    rotate_deg: float = 0.0
    translate: float = 0.0
    zoom: Range = (1.0, 1.0)
    shear_deg: float = 0.0
    padding: Literal["border", "reflection", "zeros"] = "border"
    p: float = 1.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("area", self.area, 0, 1)
        check_range("ratio", self.ratio, 0)
        check_range("zoom", self.zoom, 0)
        check_probability("flip", self.flip)
        check_probability("p", self.p)
        check_finite(
            rotate_deg=self.rotate_deg, translate=self.translate, shear_deg=self.shear_deg
        )
        if min(self.area[0], self.ratio[0], self.zoom[0]) <= 0:
            raise InvalidInput(
                "expected area, ratio and zoom above 0, "
                f"got {self.area}, {self.ratio}, {self.zoom}"
            )
        if min(self.rotate_deg, self.translate, self.shear_deg) < 0 or self.shear_deg >= 90:
            raise InvalidInput(
                "expected rotate_deg, translate and shear_deg of at least 0 and shear_deg "
                f"below 90, got {self.rotate_deg}, {self.translate}, {self.shear_deg}"
            )

    def __call__(self, pixels: UnitPixels, generator: torch.Generator) -> UnitPixels:
        """Return the images resampled; see ``Augmentation``."""
        draw = Draw(pixels, generator)
        height, width = pixels.shape[2:]
        linear, offset = self._map(draw, (height, width))
        grid = pixels.new_empty(len(pixels), height, width, 2)
        x, y = _centres(width, pixels), _centres(height, pixels).unsqueeze(1)
        for axis in (0, 1):
            along_x = linear[axis][0][:, None] * x + offset[axis][:, None]
            along_y = linear[axis][1][:, None, None] * y
            # Written in place: stacking two planes costs four times as much as adding them.
            torch.add(along_x.unsqueeze(1), along_y, out=grid[..., axis])
        sampled = functional.grid_sample(
            pixels, grid, mode="bilinear", padding_mode=self.padding, align_corners=False
        )
        # Bilinear weights may add up to a rounding error more than 1.
        return sampled.clamp_(0, 1)

    def _map(
        self, draw: Draw, size: tuple[int, int]
    ) -> tuple[list[list[torch.Tensor]], list[torch.Tensor]]:
        """Map from output to source, both in [-1, 1]: 2x2 matrix and offset, (b,) each."""
        height, width = size
        down, across = window_sides(draw, size, self.area, self.ratio)
        centre_x = (1 - across) * draw.uniform((-1, 1))
        centre_y = (1 - down) * draw.uniform((-1, 1))
        chosen = draw.chance(self.p)
        mirror = 1 - 2 * draw.chance(self.flip).to(across.dtype)
        turn = self._turn(draw)
        if turn is None:
            zero = torch.zeros_like(across)
            xx, xy, yx, yy = across, zero, zero, down
        else:
            # The turn is made in pixels, where it keeps right angles, not in [-1, 1].
            shape = height / width
            xx, xy = turn[0] * across, turn[1] * down * shape
            yx, yy = turn[2] * across / shape, turn[3] * down
            centre_x = centre_x + turn[4]
            centre_y = centre_y + turn[5]
        if self.p < 1:
            xx, yy = torch.where(chosen, xx, 1), torch.where(chosen, yy, 1)
            xy, yx, centre_x, centre_y = (
                torch.where(chosen, t, 0) for t in (xy, yx, centre_x, centre_y)
            )
        return [[xx * mirror, xy], [yx * mirror, yy]], [centre_x, centre_y]

    def _turn(self, draw: Draw) -> list[torch.Tensor] | None:
        """Rotation times shear over zoom, row by row, and shift in [-1, 1]; None without."""
        if not (self.rotate_deg or self.shear_deg or self.translate or self.zoom != (1, 1)):
            return None
        angle = draw.uniform((-self.rotate_deg, self.rotate_deg)) * (math.pi / 180)
        slope = torch.tan(draw.uniform((-self.shear_deg, self.shear_deg)) * (math.pi / 180))
        extent = torch.exp(-draw.uniform((math.log(self.zoom[0]), math.log(self.zoom[1]))))
        sine, cosine = angle.sin() * extent, angle.cos() * extent
        # A shift by a fraction f of a side is 2f in [-1, 1].
        shift = [draw.uniform((-2 * self.translate, 2 * self.translate)) for _ in range(2)]
        return [cosine, cosine * slope - sine, sine, sine * slope + cosine, *shift]


def _centres(count: int, like: torch.Tensor) -> torch.Tensor:
    """Centres of ``count`` pixels in [-1, 1], where -1 and 1 are the outer edges."""
    steps = torch.arange(count, device=like.device, dtype=like.dtype)
    return (2 * steps + 1) / count - 1
