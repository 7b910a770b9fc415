"""A small file."""

from dataclasses import dataclass
from typing import ClassVar

from embedkit.evaluate.corruption import Rngs, Strength, corruptions
from embedkit.evaluate.measurement.pixels.recode import as_jpeg, through_pillow
from embedkit.evaluate.measurement.pixels.warp import Floats

__all__ = ["JpegCompression"]


@corruptions.register("jpeg_compression")
@dataclass(frozen=True)
class JpegCompression:
    """Codes as JPEG of a quality and decodes again."""

    cifar: ClassVar[tuple[Strength, ...]] = ((80,), (65,), (58,), (50,), (40,))
    imagenet: ClassVar[tuple[Strength, ...]] = ((25,), (18,), (15,), (10,), (7,))

    def __call__(self, pixels: Floats, strength: Strength, rngs: Rngs) -> Floats:
        """Corrupt a batch."""
        return through_pillow(pixels, lambda image: as_jpeg(image, int(strength[0])))
