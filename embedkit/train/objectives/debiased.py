"""Debiased contrast: Chuang et al., Debiased Contrastive Learning, NeurIPS 2020."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from embedkit.train.objective import Batch, Loss, Sizes, objectives
from embedkit.train.terms import check_views, image_pairs, require

__all__ = ["Debiased"]


@objectives.register("debiased")
@dataclass(frozen=True)
class Debiased:
    """SimCLR that takes out what negatives of the same class add by chance (eq. 7 and 8).

    Attributes:
        temperature: Divides the cosines; above 0.
        same_class: Probability that a negative has the class of the image (tau plus), in
            [0, 1); 0 is SimCLR, 1 over the number of classes is right for balanced ones.
    """

    temperature: float = 0.5
    same_class: float = 0.1

    needs = frozenset({"projections"})
    views = 2

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(self.temperature > 0, "a temperature above 0", self.temperature)
        require(0 <= self.same_class < 1, "same_class in [0, 1)", self.same_class)

    def build(self, sizes: Sizes) -> nn.Module | None:
        """Nothing is trained beside encoder and projection head."""
        return None

    def __call__(self, batch: Batch) -> Loss:
        """Return the mean over both directions of all positive pairs.

        Args:
            batch: Two views, (2, b, d), b >= 2.

        Returns:
            At least 0.

        Raises:
            InvalidInput: If there are not two views or fewer than two images.
        """
        check_views(batch.projections, views=2, name="debiased")
        pairs = image_pairs(batch.projections, self.temperature)
        # Everything relative to exp(1 / t), the largest that a cosine gives: no overflow.
        highest = 1 / self.temperature
        positive = torch.exp(pairs.positives - highest)
        count = pairs.negatives.shape[1] - 2
        mean = torch.exp(pairs.negatives - highest).sum(dim=1) / count
        corrected = (mean - self.same_class * positive) / (1 - self.same_class)
        # Equation 7 keeps the estimate above its smallest possible value, exp(-1 / t).
        negative = count * corrected.clamp(min=math.exp(-2 * highest))
        log_probability = pairs.positives - highest - torch.log(positive + negative)
        return Loss.sum(contrast=-log_probability.mean())
