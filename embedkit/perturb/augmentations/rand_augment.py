"""RandAugment: Cubuk et al., Practical Automated Data Augmentation, NeurIPS 2020."""

from dataclasses import dataclass

import torch

from embedkit.encoders.encoder import UnitPixels
from embedkit.errors import InvalidInput
from embedkit.perturb.augmentation import augmentations
from embedkit.perturb.draw import Draw, check_probability
from embedkit.perturb.operations import OPERATIONS, apply_operations
from embedkit.perturb.policies import RAND_AUGMENT, SIGNED, strength_of

__all__ = ["RandAugment"]

_LEVELS = 31


@augmentations.register("rand_augment")
@dataclass(frozen=True)
class RandAugment:
    """A few of fourteen operations one after the other, all of the same strength.

    Every image draws its own; the identity is one of them. Geometric ones sample bilinearly and
    fill with grey.

    Attributes:
        operations: How many one after the other, at least 1 (N).
        magnitude: Level of all of them, 0 to 30 (M).
        p: Probability, per image.
    """

    operations: int = 2
    magnitude: float = 9.0
    p: float = 1.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_probability("p", self.p)
        if self.operations < 1:
            raise InvalidInput(f"expected at least 1 operation, got {self.operations}")
        if not 0 <= self.magnitude <= _LEVELS - 1:
            raise InvalidInput(f"expected a magnitude of 0 to 30, got {self.magnitude}")

    def __call__(self, pixels: UnitPixels, generator: torch.Generator) -> UnitPixels:
        """Return the images changed; see ``Augmentation``."""
        draw = Draw(pixels, generator)
        chosen = draw.chance(self.p)
        strengths = [strength_of(name, self.magnitude, _LEVELS) for name in RAND_AUGMENT]
        table = pixels.new_tensor(strengths)
        signed = torch.tensor([name in SIGNED for name in RAND_AUGMENT], device=pixels.device)
        index = [OPERATIONS.index(name) for name in RAND_AUGMENT]
        operations = torch.tensor(index, device=pixels.device)
        changed = pixels.clone()
        for _ in range(self.operations):
            one = draw.below(len(RAND_AUGMENT))
            sign = torch.where(signed[one] & draw.chance(0.5), -1.0, 1.0).to(table)
            # Operation 0 leaves an image as it is.
            picked = operations[one].where(chosen, 0)
            changed = apply_operations(changed, picked, table[one] * sign)
        return changed
