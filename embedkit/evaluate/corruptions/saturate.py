"""Colours too strong or too weak."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from embedkit.evaluate.corruption import Rngs, Strength, corruptions
from embedkit.evaluate.measurement.pixels.filters import from_hsv, to_hsv
from embedkit.evaluate.measurement.pixels.warp import Floats

__all__ = ["Saturate"]


@corruptions.register("saturate")
@dataclass(frozen=True)
class Saturate:
    """Multiplies the saturation of each colour and adds to it.

    A grey image has no colour, and stays as it is.
    """

    cifar: ClassVar[tuple[Strength, ...]] = ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))
    imagenet: ClassVar[tuple[Strength, ...]] = ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))

    def __call__(self, pixels: Floats, strength: Strength, rngs: Rngs) -> Floats:
        """Corrupt a batch."""
        hue, saturation, value = to_hsv(pixels)
        if pixels.shape[3] == 1:
            return pixels.copy()
        factor, offset = np.float32(strength[0]), np.float32(strength[1])
        return from_hsv(hue, (saturation * factor + offset).clip(0, 1), value, 3)
