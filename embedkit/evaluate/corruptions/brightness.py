"""Too much light."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from embedkit.evaluate.corruption import Rngs, Strength, corruptions
from embedkit.evaluate.measurement.pixels.filters import from_hsv, to_hsv
from embedkit.evaluate.measurement.pixels.warp import Floats

__all__ = ["Brightness"]


@corruptions.register("brightness")
@dataclass(frozen=True)
class Brightness:
    """Adds to the value of each colour, and leaves hue and saturation."""

    cifar: ClassVar[tuple[Strength, ...]] = ((0.05,), (0.1,), (0.15,), (0.2,), (0.3,))
    imagenet: ClassVar[tuple[Strength, ...]] = ((0.1,), (0.2,), (0.3,), (0.4,), (0.5,))

    def __call__(self, pixels: Floats, strength: Strength, rngs: Rngs) -> Floats:
        """Corrupt a batch."""
        hue, saturation, value = to_hsv(pixels)
        lighter = (value + np.float32(strength[0])).clip(0, 1)
        return from_hsv(hue, saturation, lighter, pixels.shape[3])
