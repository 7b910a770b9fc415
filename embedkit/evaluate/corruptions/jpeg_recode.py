"""The same picture from a client that sends JPEG."""

from dataclasses import dataclass
from typing import ClassVar

from embedkit.evaluate.corruption import Rngs, Strength, corruptions
from embedkit.evaluate.measurement.pixels.recode import as_jpeg, through_pillow
from embedkit.evaluate.measurement.pixels.warp import Floats

__all__ = ["JpegRecode"]


@corruptions.register("jpeg_recode")
@dataclass(frozen=True)
class JpegRecode:
    """Codes as JPEG of the qualities that cameras and browsers use: 95 to 50."""

    cifar: ClassVar[tuple[Strength, ...]] = ((95,), (90,), (85,), (75,), (50,))
    imagenet: ClassVar[tuple[Strength, ...]] = ((95,), (90,), (85,), (75,), (50,))

    def __call__(self, pixels: Floats, strength: Strength, rngs: Rngs) -> Floats:
        """Corrupt a batch."""
        return through_pillow(pixels, lambda image: as_jpeg(image, int(strength[0])))
