"""A zigzag line across."""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np

from embedkit.evaluate.corruption import Rngs, Strength, corruptions
from embedkit.evaluate.measurement.pixels.recode import stroke
from embedkit.evaluate.measurement.pixels.warp import Floats

__all__ = ["Zigzag"]


@corruptions.register("zigzag")
@dataclass(frozen=True)
class Zigzag:
    """Draws a line that goes up and down around a straight one."""

    cifar: ClassVar[tuple[Strength, ...]] = ((1,),)
    imagenet: ClassVar[tuple[Strength, ...]] = ((1,),)

    def __call__(self, pixels: Floats, strength: Strength, rngs: Rngs) -> Floats:
        """Corrupt a batch."""
        height, width = pixels.shape[1:3]
        lines = np.zeros((len(rngs), height, width), np.float32)
        for index, rng in enumerate(rngs):
            corners = _corners(rng)
            for start, end in pairwise(corners):
                lines[index] += stroke(start, end, height, width)
        return pixels + lines[..., np.newaxis]


def _corners(rng: np.random.Generator) -> list[tuple[float, float]]:
    """Column and row of each corner, on a grid of 28."""
    row = int(rng.integers(0, 27))
    turn = np.arctan(int(rng.integers(-5, 5)) / 23)
    length = 23 / np.cos(turn)
    along = [0.0, *(np.arange(2, length, 4))]
    across = [0.0, *(2.0 * (-1) ** np.arange(len(along) - 1))]
    return [
        (
            2 + a * float(np.cos(turn)) - b * float(np.sin(turn)),
            row + a * float(np.sin(turn)) + b * float(np.cos(turn)),
        )
        for a, b in zip(along, across, strict=True)
    ]
