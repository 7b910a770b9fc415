"""Barlow Twins: Zbontar et al., Learning via Redundancy Reduction, ICML 2021."""

from dataclasses import dataclass

import torch
from torch import nn

from embedkit.train.objective import Batch, Loss, Sizes, objectives
from embedkit.train.terms import (
    check_views,
    cross_correlation,
    off_diagonal,
    require,
    standardised,
)

__all__ = ["BarlowTwins"]


@objectives.register("barlow_twins")
@dataclass(frozen=True)
class BarlowTwins:
    """Bring the cross-correlation of two views' dimensions to the identity (eq. 1 and 2).

    Attributes:
        redundancy: Weight of the squared correlations off the diagonal (lambda), at least 0.
            The paper's 0.005 is for 8192 dimensions; 1 / dim suits fewer.
    """

    redundancy: float = 5e-3

    needs = frozenset({"projections"})
    views = 2

    def __post_init__(self) -> None:
        """Check the weight."""
        require(self.redundancy >= 0, "a redundancy of at least 0", self.redundancy)

    def build(self, sizes: Sizes) -> nn.Module | None:
        """Nothing is trained beside encoder and projection head."""
        return None

    def __call__(self, batch: Batch) -> Loss:
        """Return the sum over all pairs of dimensions.

        Args:
            batch: Two views, (2, b, d), not normalised, b >= 2.

        Returns:
            At least 0, in the parts ``invariance`` and ``redundancy``.

        Raises:
            InvalidInput: If there are not two views or fewer than two images.
        """
        check_views(batch.projections, views=2, name="barlow_twins")
        first, second = (standardised(z) for z in batch.projections)
        correlation = cross_correlation(first, second)
        return Loss.sum(
            invariance=(torch.diagonal(correlation) - 1).square().sum(),
            redundancy=self.redundancy * off_diagonal(correlation).square().sum(),
        )
