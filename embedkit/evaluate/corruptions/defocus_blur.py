"""A lens out of focus."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from embedkit.evaluate.corruption import Rngs, Strength, corruptions
from embedkit.evaluate.measurement.pixels.filters import disk
from embedkit.evaluate.measurement.pixels.warp import Floats

__all__ = ["DefocusBlur"]


@corruptions.register("defocus_blur")
@dataclass(frozen=True)
class DefocusBlur:
    """Blurs by a disk: radius in pixels, and softness of its edge."""

    cifar: ClassVar[tuple[Strength, ...]] = (
        (0.3, 0.4),
        (0.4, 0.5),
        (0.5, 0.6),
        (1, 0.2),
        (1.5, 0.1),
    )
    imagenet: ClassVar[tuple[Strength, ...]] = (
        (3, 0.1),
        (4, 0.5),
        (6, 0.5),
        (8, 0.5),
        (10, 0.5),
    )

    def __call__(self, pixels: Floats, strength: Strength, rngs: Rngs) -> Floats:
        """Corrupt a batch."""
        from scipy.ndimage import correlate

        kernel = disk(*strength)[np.newaxis, :, :, np.newaxis]
        return np.asarray(correlate(pixels, kernel, mode="mirror"))
