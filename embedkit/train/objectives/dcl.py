"""DCL: Yeh et al., Decoupled Contrastive Learning, ECCV 2022."""

from dataclasses import dataclass

import torch
from torch import nn

from embedkit.train.objective import Batch, Loss, Sizes, objectives
from embedkit.train.terms import check_views, image_pairs, require

__all__ = ["DCL"]


@objectives.register("dcl")
@dataclass(frozen=True)
class DCL:
    """SimCLR without the positive in its denominator (L_DC, section 3.2).

    The positive there weakens the gradient of pairs that are told apart already, most of all
    in small batches (the negative-positive coupling of proposition 1).

    Attributes:
        temperature: Divides the cosines; above 0.
    """

    temperature: float = 0.1

    needs = frozenset({"projections"})
    views = 2

    def __post_init__(self) -> None:
        """Check the temperature."""
        require(self.temperature > 0, "a temperature above 0", self.temperature)

    def build(self, sizes: Sizes) -> nn.Module | None:
        """Nothing is trained beside encoder and projection head."""
        return None

    def __call__(self, batch: Batch) -> Loss:
        """Return the mean over both directions of all positive pairs.

        Args:
            batch: Two views, (2, b, d), b >= 2.

        Returns:
            Of any sign, in two parts: ``attraction``, minus the cosine of the pair over the
            temperature, and ``repulsion``, the logarithm of the sum over all negatives.

        Raises:
            InvalidInput: If there are not two views or fewer than two images.
        """
        check_views(batch.projections, views=2, name="dcl")
        pairs = image_pairs(batch.projections, self.temperature)
        return Loss.sum(
            attraction=-pairs.positives.mean(),
            repulsion=torch.logsumexp(pairs.negatives, dim=1).mean(),
        )
