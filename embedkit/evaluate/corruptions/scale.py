"""An object farther away."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from embedkit.evaluate.corruption import Rngs, Strength, corruptions
from embedkit.evaluate.measurement.pixels.warp import Floats, affine

__all__ = ["Scale"]


@corruptions.register("scale")
@dataclass(frozen=True)
class Scale:
    """Shrinks to a share of the size; what lies around it is black."""

    cifar: ClassVar[tuple[Strength, ...]] = ((0.9,), (0.8,), (0.7,), (0.6,), (0.5,))
    imagenet: ClassVar[tuple[Strength, ...]] = ((0.9,), (0.8,), (0.7,), (0.6,), (0.5,))

    def __call__(self, pixels: Floats, strength: Strength, rngs: Rngs) -> Floats:
        """Corrupt a batch."""
        maps = np.zeros((len(rngs), 2, 3))
        maps[:, 0, 0] = maps[:, 1, 1] = 1 / strength[0]
        return affine(pixels, maps, edge="black")
