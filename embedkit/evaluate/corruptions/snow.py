"""Falling snow."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from embedkit.evaluate.corruption import Rngs, Strength, corruptions
from embedkit.evaluate.measurement.pixels.filters import motion, normals, zoomed
from embedkit.evaluate.measurement.pixels.warp import Floats

__all__ = ["Snow"]


@corruptions.register("snow")
@dataclass(frozen=True)
class Snow:
    """Whitens the image and adds streaks of flakes.

    Strength: mean and spread of the flakes, their size, the least that shows, radius and sigma
    of their streaks, weight of the image.
    """

    cifar: ClassVar[tuple[Strength, ...]] = (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    )
    imagenet: ClassVar[tuple[Strength, ...]] = (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    )

    def __call__(self, pixels: Floats, strength: Strength, rngs: Rngs) -> Floats:
        """Corrupt a batch."""
        mean, spread, zoom, least, radius, sigma, share = strength
        flakes = mean + np.float32(spread) * normals(rngs, (*pixels.shape[1:3], 1))
        flakes = zoomed(flakes.astype(np.float32), zoom)
        flakes[flakes < least] = 0
        angles = np.array([rng.uniform(-135, -45) for rng in rngs])
        flakes = motion(flakes.clip(0, 1), int(radius), sigma, angles)
        grey = pixels @ _GREY if pixels.shape[3] == 3 else pixels[..., 0]
        white = np.maximum(pixels, grey[..., np.newaxis] * 1.5 + 0.5)
        whitened = share * pixels + (1 - share) * white
        return np.asarray(whitened + flakes + flakes[:, ::-1, ::-1], np.float32)


_GREY = np.array([0.299, 0.587, 0.114], np.float32)
