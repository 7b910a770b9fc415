"""Bits that flipped: salt and pepper."""

from dataclasses import dataclass
from typing import ClassVar

from embedkit.evaluate.corruption import Rngs, Strength, corruptions
from embedkit.evaluate.measurement.pixels.warp import Floats

__all__ = ["ImpulseNoise"]


@corruptions.register("impulse_noise")
@dataclass(frozen=True)
class ImpulseNoise:
    """Sets a share of the values to 0 or 1, each channel on its own."""

    cifar: ClassVar[tuple[Strength, ...]] = ((0.01,), (0.02,), (0.03,), (0.05,), (0.07,))
    imagenet: ClassVar[tuple[Strength, ...]] = ((0.03,), (0.06,), (0.09,), (0.17,), (0.27,))

    def __call__(self, pixels: Floats, strength: Strength, rngs: Rngs) -> Floats:
        """Corrupt a batch."""
        spoilt = pixels.copy()
        for rng, image in zip(rngs, spoilt, strict=True):
            hit = rng.random(image.shape) <= strength[0]
            salt = rng.random(image.shape) <= 0.5
            image[hit] = salt[hit]
        return spoilt
