"""AutoAugment: Cubuk et al., Learning Augmentation Strategies from Data, CVPR 2019."""

from dataclasses import dataclass
from typing import Literal

import torch

from embedkit.encoders.encoder import UnitPixels
from embedkit.perturb.augmentation import augmentations
from embedkit.perturb.draw import Draw, check_probability
from embedkit.perturb.operations import OPERATIONS, apply_operations
from embedkit.perturb.policies import POLICIES, SIGNED, strength_of

__all__ = ["AutoAugment"]

_LEVELS = 10


@augmentations.register("auto_augment")
@dataclass(frozen=True)
class AutoAugment:
    """One of 25 published pairs of operations, each with its probability and strength.

    Every image draws its own pair. Geometric operations sample bilinearly and fill with grey.

    Attributes:
        policy: Data on which the pairs were found: ``cifar10`` or ``imagenet``.
        p: Probability of anything at all, per image.
    """

    policy: Literal["cifar10", "imagenet"] = "cifar10"
    p: float = 1.0

    def __post_init__(self) -> None:
        """Check the range."""
        check_probability("p", self.p)

    def __call__(self, pixels: UnitPixels, generator: torch.Generator) -> UnitPixels:
        """Return the images changed; see ``Augmentation``."""
        draw = Draw(pixels, generator)
        pairs = POLICIES[self.policy]
        chosen, pair = draw.chance(self.p), draw.below(len(pairs))
        changed = pixels.clone()
        for steps in zip(*pairs, strict=True):
            index = [OPERATIONS.index(name) for name, _, _ in steps]
            strengths = [strength_of(name, level, _LEVELS) for name, _, level in steps]
            signed = torch.tensor(
                [name in SIGNED for name, _, _ in steps], device=pixels.device
            )
            probability = pixels.new_tensor([p for _, p, _ in steps])
            operation = torch.tensor(index, device=pixels.device)[pair]
            strength = pixels.new_tensor(strengths)[pair]
            sign = torch.where(signed[pair] & draw.chance(0.5), -1.0, 1.0).to(strength)
            happens = chosen & (draw.uniform((0.0, 1.0)) < probability[pair])
            # Operation 0 leaves an image as it is.
            changed = apply_operations(changed, operation.where(happens, 0), strength * sign)
        return changed
