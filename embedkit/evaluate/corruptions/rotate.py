"""A tilted image."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from embedkit.evaluate.corruption import Rngs, Strength, corruptions
from embedkit.evaluate.measurement.pixels.warp import Floats, affine

__all__ = ["Rotate"]


@corruptions.register("rotate")
@dataclass(frozen=True)
class Rotate:
    """Turns by an angle in radians, to either side; what comes from outside is black."""

    cifar: ClassVar[tuple[Strength, ...]] = ((0.2,), (0.4,), (0.6,), (0.8,), (1.0,))
    imagenet: ClassVar[tuple[Strength, ...]] = ((0.2,), (0.4,), (0.6,), (0.8,), (1.0,))

    def __call__(self, pixels: Floats, strength: Strength, rngs: Rngs) -> Floats:
        """Corrupt a batch."""
        angle = np.array([rng.choice([-1, 1]) for rng in rngs]) * strength[0]
        maps = np.zeros((len(rngs), 2, 3))
        maps[:, 0, 0] = maps[:, 1, 1] = np.cos(angle)
        maps[:, 0, 1], maps[:, 1, 0] = -np.sin(angle), np.sin(angle)
        return affine(pixels, maps, edge="black")
