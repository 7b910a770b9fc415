"""Noise that grows with brightness."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from embedkit.evaluate.corruption import Rngs, Strength, corruptions
from embedkit.evaluate.measurement.pixels.filters import normals
from embedkit.evaluate.measurement.pixels.warp import Floats

__all__ = ["SpeckleNoise"]


@corruptions.register("speckle_noise")
@dataclass(frozen=True)
class SpeckleNoise:
    """Adds normal noise in proportion to each value."""

    cifar: ClassVar[tuple[Strength, ...]] = ((0.06,), (0.1,), (0.12,), (0.16,), (0.2,))
    imagenet: ClassVar[tuple[Strength, ...]] = ((0.15,), (0.2,), (0.35,), (0.45,), (0.6,))

    def __call__(self, pixels: Floats, strength: Strength, rngs: Rngs) -> Floats:
        """Corrupt a batch."""
        return pixels + pixels * np.float32(strength[0]) * normals(rngs, pixels.shape[1:])
