"""A camera that moved."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from embedkit.evaluate.corruption import Rngs, Strength, corruptions
from embedkit.evaluate.measurement.pixels.filters import motion
from embedkit.evaluate.measurement.pixels.warp import Floats

__all__ = ["MotionBlur"]


@corruptions.register("motion_blur")
@dataclass(frozen=True)
class MotionBlur:
    """Blurs along a line at up to 45 degrees: radius and standard deviation in pixels."""

    cifar: ClassVar[tuple[Strength, ...]] = ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))
    imagenet: ClassVar[tuple[Strength, ...]] = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))

    def __call__(self, pixels: Floats, strength: Strength, rngs: Rngs) -> Floats:
        """Corrupt a batch."""
        angles = np.array([rng.uniform(-45, 45) for rng in rngs])
        return motion(pixels, int(strength[0]), strength[1], angles)
