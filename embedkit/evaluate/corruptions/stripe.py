"""Inverted margins."""

from dataclasses import dataclass
from typing import ClassVar

from embedkit.evaluate.corruption import Rngs, Strength, corruptions
from embedkit.evaluate.measurement.pixels.warp import Floats

__all__ = ["Stripe"]


@corruptions.register("stripe")
@dataclass(frozen=True)
class Stripe:
    """Inverts the left and the right quarter."""

    cifar: ClassVar[tuple[Strength, ...]] = ((1,),)
    imagenet: ClassVar[tuple[Strength, ...]] = ((1,),)

    def __call__(self, pixels: Floats, strength: Strength, rngs: Rngs) -> Floats:
        """Corrupt a batch."""
        width = pixels.shape[2]
        spoilt = pixels.copy()
        spoilt[:, :, : width // 4] = 1 - spoilt[:, :, : width // 4]
        spoilt[:, :, 3 * width // 4 :] = 1 - spoilt[:, :, 3 * width // 4 :]
        return spoilt
