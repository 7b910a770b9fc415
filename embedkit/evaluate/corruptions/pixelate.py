"""Too few pixels."""

from dataclasses import dataclass
from typing import ClassVar

from embedkit.evaluate.corruption import Rngs, Strength, corruptions
from embedkit.evaluate.measurement.pixels.recode import through_pillow
from embedkit.evaluate.measurement.pixels.warp import Floats

__all__ = ["Pixelate"]


@corruptions.register("pixelate")
@dataclass(frozen=True)
class Pixelate:
    """Shrinks to a share of the sides by averaging, and enlarges again."""

    cifar: ClassVar[tuple[Strength, ...]] = ((0.95,), (0.9,), (0.85,), (0.75,), (0.65,))
    imagenet: ClassVar[tuple[Strength, ...]] = ((0.6,), (0.5,), (0.4,), (0.3,), (0.25,))

    def __call__(self, pixels: Floats, strength: Strength, rngs: Rngs) -> Floats:
        """Corrupt a batch."""
        height, width = pixels.shape[1:3]
        small = max(int(width * strength[0]), 1), max(int(height * strength[0]), 1)
        return through_pillow(
            pixels, lambda image: image.resize(small, 4).resize((width, height), 4)
        )
