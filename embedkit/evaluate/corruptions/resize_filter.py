"""The same picture resized by another program."""

from dataclasses import dataclass
from typing import ClassVar

from embedkit.evaluate.corruption import Rngs, Strength, corruptions
from embedkit.evaluate.measurement.pixels.recode import through_pillow
from embedkit.evaluate.measurement.pixels.warp import Floats

__all__ = ["ResizeFilter"]


@corruptions.register("resize_filter")
@dataclass(frozen=True)
class ResizeFilter:
    """Enlarges twofold (bicubic) and shrinks by Lanczos, box, bilinear, bicubic or nearest.

    Strength: Pillow's number of the filter. The order is no severity: these are five resizers.
    """

    cifar: ClassVar[tuple[Strength, ...]] = ((1,), (4,), (2,), (3,), (0,))
    imagenet: ClassVar[tuple[Strength, ...]] = ((1,), (4,), (2,), (3,), (0,))

    def __call__(self, pixels: Floats, strength: Strength, rngs: Rngs) -> Floats:
        """Corrupt a batch."""
        height, width = pixels.shape[1:3]
        way = int(strength[0])
        return through_pillow(
            pixels,
            lambda image: image.resize((2 * width, 2 * height), 3).resize((width, height), way),
        )
