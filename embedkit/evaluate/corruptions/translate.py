"""An object off the middle."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from embedkit.evaluate.corruption import Rngs, Strength, corruptions
from embedkit.evaluate.measurement.pixels.warp import Floats, affine

__all__ = ["Translate"]


@corruptions.register("translate")
@dataclass(frozen=True)
class Translate:
    """Moves along a diagonal, by 28ths of the sides; what comes in is black."""

    cifar: ClassVar[tuple[Strength, ...]] = ((1,), (2,), (3,), (4,), (5,))
    imagenet: ClassVar[tuple[Strength, ...]] = ((1,), (2,), (3,), (4,), (5,))

    def __call__(self, pixels: Floats, strength: Strength, rngs: Rngs) -> Floats:
        """Corrupt a batch."""
        height, width = pixels.shape[1:3]
        maps = np.zeros((len(rngs), 2, 3))
        maps[:, 0, 0] = maps[:, 1, 1] = 1
        for one, rng in zip(maps, rngs, strict=True):
            one[:, 2] = rng.choice([-1, 1], 2) * strength[0] * np.array([width, height]) / 28
        return affine(pixels, maps, edge="black")
