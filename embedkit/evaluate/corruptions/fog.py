"""Fog, thicker in some places."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from embedkit.evaluate.corruption import Rngs, Strength, corruptions
from embedkit.evaluate.measurement.pixels.filters import plasma
from embedkit.evaluate.measurement.pixels.warp import Floats

__all__ = ["Fog"]


@corruptions.register("fog")
@dataclass(frozen=True)
class Fog:
    """Mixes clouds into the image: their weight, and how smooth they are."""

    cifar: ClassVar[tuple[Strength, ...]] = (
        (0.2, 3),
        (0.5, 3),
        (0.75, 2.5),
        (1, 2),
        (1.5, 1.75),
    )
    imagenet: ClassVar[tuple[Strength, ...]] = (
        (1.5, 2),
        (2, 2),
        (2.5, 1.7),
        (2.5, 1.5),
        (3, 1.4),
    )

    def __call__(self, pixels: Floats, strength: Strength, rngs: Rngs) -> Floats:
        """Corrupt a batch."""
        weight, decay = strength
        height, width = pixels.shape[1:3]
        clouds = plasma(rngs, height, width, decay)[..., np.newaxis]
        brightest = pixels.max(axis=(1, 2, 3), keepdims=True)
        mixed = (pixels + weight * clouds) * brightest / (brightest + weight)
        return np.asarray(mixed, np.float32)
