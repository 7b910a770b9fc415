"""Ice on the lens."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from embedkit.evaluate.corruption import Rngs, Strength, corruptions
from embedkit.evaluate.measurement.pixels.filters import plasma
from embedkit.evaluate.measurement.pixels.warp import Floats

__all__ = ["Frost"]


@corruptions.register("frost")
@dataclass(frozen=True)
class Frost:
    """Adds ice crystals: weight of the image and weight of the ice.

    The ice is drawn, and not taken from the six photographs of the published sets: numbers are
    near those of the published sets, but not equal.
    """

    cifar: ClassVar[tuple[Strength, ...]] = (
        (1, 0.2),
        (1, 0.3),
        (0.9, 0.4),
        (0.85, 0.4),
        (0.75, 0.45),
    )
    imagenet: ClassVar[tuple[Strength, ...]] = (
        (1, 0.4),
        (0.8, 0.6),
        (0.7, 0.7),
        (0.65, 0.7),
        (0.6, 0.75),
    )

    def __call__(self, pixels: Floats, strength: Strength, rngs: Rngs) -> Floats:
        """Corrupt a batch."""
        height, width, channels = pixels.shape[1:]
        rough = plasma(rngs, height, width, 1.7)
        # Ridges where the clouds pass their middle look like needles of ice.
        ridges = 1 - 2 * np.abs(rough - np.median(rough, axis=(1, 2), keepdims=True))
        ice = (0.25 + 0.75 * ridges.clip(0, 1) ** 3)[..., np.newaxis]
        tint = _TINT if channels == 3 else _TINT.mean(keepdims=True)
        return np.asarray(strength[0] * pixels + strength[1] * ice * tint, np.float32)


_TINT = np.array([0.85, 0.93, 1.0], np.float32)
