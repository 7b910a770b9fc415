"""Frosted glass."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from embedkit.evaluate.corruption import Rngs, Strength, corruptions
from embedkit.evaluate.measurement.pixels.filters import blurred
from embedkit.evaluate.measurement.pixels.warp import Floats

__all__ = ["GlassBlur"]


@corruptions.register("glass_blur")
@dataclass(frozen=True)
class GlassBlur:
    """Blurs, swaps pixels with near ones, and blurs again: sigma, reach and rounds.

    The published code means to swap but copies in colour images; here it swaps.
    """

    cifar: ClassVar[tuple[Strength, ...]] = (
        (0.05, 1, 1),
        (0.25, 1, 1),
        (0.4, 1, 1),
        (0.25, 1, 2),
        (0.4, 1, 2),
    )
    imagenet: ClassVar[tuple[Strength, ...]] = (
        (0.7, 1, 2),
        (0.9, 2, 1),
        (1, 2, 3),
        (1.1, 3, 2),
        (1.5, 4, 2),
    )

    def __call__(self, pixels: Floats, strength: Strength, rngs: Rngs) -> Floats:
        """Corrupt a batch."""
        sigma, reach, rounds = strength[0], int(strength[1]), int(strength[2])
        height, width = pixels.shape[1:3]
        spoilt = blurred(pixels, sigma).copy()
        each = np.arange(len(spoilt))
        for _ in range(rounds):
            moves = np.stack([rng.integers(-reach, reach, (height, width, 2)) for rng in rngs])
            # One swap after another, as published: a pixel may travel far.
            for row in range(height - reach, reach, -1):
                for column in range(width - reach, reach, -1):
                    down, right = moves[:, row - 1, column - 1].T
                    other = each, (row + down) % height, (column + right) % width
                    here = each, row % height, column % width
                    spoilt[here], spoilt[other] = spoilt[other], spoilt[here]
        return blurred(spoilt, sigma)
