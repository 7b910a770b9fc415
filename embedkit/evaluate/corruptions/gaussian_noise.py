"""Noise of a sensor in poor light."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from embedkit.evaluate.corruption import Rngs, Strength, corruptions
from embedkit.evaluate.measurement.pixels.filters import normals
from embedkit.evaluate.measurement.pixels.warp import Floats

__all__ = ["GaussianNoise"]


@corruptions.register("gaussian_noise")
@dataclass(frozen=True)
class GaussianNoise:
    """Adds normal noise of a standard deviation to every value."""

    cifar: ClassVar[tuple[Strength, ...]] = ((0.04,), (0.06,), (0.08,), (0.09,), (0.1,))
    imagenet: ClassVar[tuple[Strength, ...]] = ((0.08,), (0.12,), (0.18,), (0.26,), (0.38,))

    def __call__(self, pixels: Floats, strength: Strength, rngs: Rngs) -> Floats:
        """Corrupt a batch."""
        return pixels + np.float32(strength[0]) * normals(rngs, pixels.shape[1:])
