"""NT-Xent-AM: Lepage and Dehak, Additive Margin in Contrastive Frameworks, Odyssey 2024."""

from dataclasses import dataclass

import torch
from torch import nn

from embedkit.train.objective import Batch, Loss, Sizes, objectives
from embedkit.train.terms import check_views, image_pairs, require

__all__ = ["AdditiveMargin"]


@objectives.register("additive_margin")
@dataclass(frozen=True)
class AdditiveMargin:
    """SimCLR whose positive pairs must win by a margin (NT-Xent-AM, symmetric).

    Of view i with positive p, negatives n and cosines c: ``-log P / (P + sum_n exp(c_in / T))``
    with ``P = exp((c_ip - m) / T)``.

    The paper trains speaker embeddings at temperature 0.03; images want a higher one.

    Attributes:
        temperature: Divides the cosines; above 0.
        margin: Subtracted from the cosine of the positive pair, in [0, 2]; 0 is SimCLR.
    """

    temperature: float = 0.2
    margin: float = 0.1

    needs = frozenset({"projections"})
    views = 2

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(self.temperature > 0, "a temperature above 0", self.temperature)
        require(0 <= self.margin <= 2, "a margin in [0, 2]", self.margin)

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
        check_views(batch.projections, views=2, name="additive_margin")
        pairs = image_pairs(batch.projections, self.temperature)
        positives = pairs.positives - self.margin / self.temperature
        everything = torch.logaddexp(positives, torch.logsumexp(pairs.negatives, dim=1))
        return Loss.sum(contrast=(everything - positives).mean())
