"""Noise of light itself, which comes in quanta."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from embedkit.evaluate.corruption import Rngs, Strength, corruptions
from embedkit.evaluate.measurement.pixels.warp import Floats

__all__ = ["ShotNoise"]


@corruptions.register("shot_noise")
@dataclass(frozen=True)
class ShotNoise:
    """Replaces every value by a Poisson count of that many photons at full brightness."""

    cifar: ClassVar[tuple[Strength, ...]] = ((500,), (250,), (100,), (75,), (50,))
    imagenet: ClassVar[tuple[Strength, ...]] = ((60,), (25,), (12,), (5,), (3,))

    def __call__(self, pixels: Floats, strength: Strength, rngs: Rngs) -> Floats:
        """Corrupt a batch."""
        photons = strength[0]
        drawn = [rng.poisson(image * photons) for rng, image in zip(rngs, pixels, strict=True)]
        return np.asarray(np.stack(drawn) / photons, np.float32)
