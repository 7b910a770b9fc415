"""A dotted line across."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from embedkit.evaluate.corruption import Rngs, Strength, corruptions
from embedkit.evaluate.measurement.pixels.recode import stroke
from embedkit.evaluate.measurement.pixels.warp import Floats

__all__ = ["DottedLine"]


@corruptions.register("dotted_line")
@dataclass(frozen=True)
class DottedLine:
    """Draws a dotted line from the left to the right side."""

    cifar: ClassVar[tuple[Strength, ...]] = ((1,),)
    imagenet: ClassVar[tuple[Strength, ...]] = ((1,),)

    def __call__(self, pixels: Floats, strength: Strength, rngs: Rngs) -> Floats:
        """Corrupt a batch."""
        height, width = pixels.shape[1:3]
        lines = []
        for rng in rngs:
            left, right = rng.integers(0, 27, 2)
            line = stroke((0, left), (27, right), height, width)
            # In pairs of columns of 28, every second one is left out.
            gaps = (np.arange(width) * 28 // width // 2) % 2 == 0
            line[:, gaps] = 0
            lines.append(line)
        return pixels + np.stack(lines)[..., np.newaxis]
