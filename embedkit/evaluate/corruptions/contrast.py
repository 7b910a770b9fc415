"""Haze, or a bad display."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from embedkit.evaluate.corruption import Rngs, Strength, corruptions
from embedkit.evaluate.measurement.pixels.warp import Floats

__all__ = ["Contrast"]


@corruptions.register("contrast")
@dataclass(frozen=True)
class Contrast:
    """Draws every value towards the mean of its channel."""

    cifar: ClassVar[tuple[Strength, ...]] = ((0.75,), (0.5,), (0.4,), (0.3,), (0.15,))
    imagenet: ClassVar[tuple[Strength, ...]] = ((0.4,), (0.3,), (0.2,), (0.1,), (0.05,))

    def __call__(self, pixels: Floats, strength: Strength, rngs: Rngs) -> Floats:
        """Corrupt a batch."""
        mean = pixels.mean(axis=(1, 2), keepdims=True)
        return np.asarray((pixels - mean) * strength[0] + mean, np.float32)
