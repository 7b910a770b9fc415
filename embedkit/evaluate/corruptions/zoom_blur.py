"""A camera that moved towards the scene."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from embedkit.evaluate.corruption import Rngs, Strength, corruptions
from embedkit.evaluate.measurement.pixels.filters import zoomed
from embedkit.evaluate.measurement.pixels.warp import Floats

__all__ = ["ZoomBlur"]


@corruptions.register("zoom_blur")
@dataclass(frozen=True)
class ZoomBlur:
    """Averages the image with enlargements of itself, up to a factor and in steps."""

    cifar: ClassVar[tuple[Strength, ...]] = (
        (1.06, 0.01),
        (1.11, 0.01),
        (1.16, 0.01),
        (1.21, 0.01),
        (1.26, 0.01),
    )
    imagenet: ClassVar[tuple[Strength, ...]] = (
        (1.11, 0.01),
        (1.16, 0.01),
        (1.21, 0.02),
        (1.26, 0.02),
        (1.31, 0.03),
    )

    def __call__(self, pixels: Floats, strength: Strength, rngs: Rngs) -> Floats:
        """Corrupt a batch."""
        factors = np.arange(1, strength[0], strength[1])
        total = pixels.copy()
        for factor in factors:
            total += zoomed(pixels, float(factor))
        return total / np.float32(len(factors) + 1)
