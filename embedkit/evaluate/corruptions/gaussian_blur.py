"""A soft lens."""

from dataclasses import dataclass
from typing import ClassVar

from embedkit.evaluate.corruption import Rngs, Strength, corruptions
from embedkit.evaluate.measurement.pixels.filters import blurred
from embedkit.evaluate.measurement.pixels.warp import Floats

__all__ = ["GaussianBlur"]


@corruptions.register("gaussian_blur")
@dataclass(frozen=True)
class GaussianBlur:
    """Blurs by a Gaussian of a standard deviation in pixels."""

    cifar: ClassVar[tuple[Strength, ...]] = ((0.4,), (0.6,), (0.7,), (0.8,), (1,))
    imagenet: ClassVar[tuple[Strength, ...]] = ((1,), (2,), (3,), (4,), (6,))

    def __call__(self, pixels: Floats, strength: Strength, rngs: Rngs) -> Floats:
        """Corrupt a batch."""
        return blurred(pixels, strength[0])
