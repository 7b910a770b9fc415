"""SimSiam: Chen and He, Exploring Simple Siamese Representation Learning, CVPR 2021."""

from dataclasses import dataclass

import torch
from torch import nn

from embedkit.encoders.heads import prediction_head
from embedkit.train.objective import Batch, Loss, Sizes, objectives
from embedkit.train.terms import built, check_views, require, unit

__all__ = ["SimSiam"]


class _Siamese(nn.Module):
    """Batch norm of the projections and the predictor after it."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(dim, affine=False)
        self.predictor = prediction_head(dim, hidden)


@objectives.register("simsiam")
@dataclass(frozen=True)
class SimSiam:
    """Predict the network's own projection of the other view, held fixed (eq. 2 and 4).

    The paper's projection head ends in batch norm, which is here since the recipe's does not.

    Attributes:
        hidden: Width of the predictor's hidden layer; 0 takes a quarter of the projections'
            dimensions, the paper's bottleneck.
    """

    hidden: int = 0

    needs = frozenset({"projections"})
    views = 2

    def __post_init__(self) -> None:
        """Check the width."""
        require(self.hidden >= 0, "a hidden width of at least 0", self.hidden)

    def build(self, sizes: Sizes) -> nn.Module | None:
        """Batch norm and predictor, from projections to projections."""
        return _Siamese(sizes.dim, self.hidden or max(1, sizes.dim // 4))

    def __call__(self, batch: Batch) -> Loss:
        """Return half of both directions' mean negative cosine.

        Args:
            batch: Two views, (2, b, d), b >= 2, and the module.

        Returns:
            In [-1, 1]; -1 is a perfect prediction.

        Raises:
            InvalidInput: If there are not two views or fewer than two images.
        """
        check_views(batch.projections, views=2, name="simsiam")
        module = built(batch, _Siamese)
        # One view at a time, as in algorithm 1: batch norm must not mix the two.
        targets = torch.stack([module.norm(view) for view in batch.projections])
        predicted = torch.stack([module.predictor(target) for target in targets])
        cosine = (unit(predicted) * unit(targets).detach().flip(0)).sum(dim=-1)
        first, second = -0.5 * cosine.mean(dim=1)
        return Loss.sum(first=first, second=second)
