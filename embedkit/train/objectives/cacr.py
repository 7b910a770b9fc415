"""CACR: Zheng et al., Contrastive Attraction and Contrastive Repulsion, TMLR 2023."""

from dataclasses import dataclass

import torch
from torch import nn

from embedkit.train.objective import Batch, Loss, Sizes, objectives
from embedkit.train.terms import check_views, cross_view_similarity, require

__all__ = ["CACR"]


@objectives.register("cacr")
@dataclass(frozen=True)
class CACR:
    """Attract the farther positives more, and repel the nearer negatives more (section 3).

    The cost is the squared distance of unit vectors. Positives of a view are the other views
    of its image, weighted by ``exp(attraction * cost)``; negatives are all views of all other
    images, weighted by ``exp(-repulsion * cost)``. Weights of each group add up to 1.

    Attributes:
        views: Views of each image, at least 2. With two there is one positive and its weight
            is 1; the paper takes 4 to 5.
        attraction: Sharpness among positives (t+), at least 0.
        repulsion: Sharpness among negatives (t-), at least 0.
    """

    views: int = 4
    attraction: float = 1.0
    repulsion: float = 2.0

    needs = frozenset({"projections"})

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(self.views >= 2, "at least 2 views", self.views)
        sharpness = (self.attraction, self.repulsion)
        require(min(sharpness) >= 0, "sharpness of at least 0", sharpness)

    def build(self, sizes: Sizes) -> nn.Module | None:
        """Nothing is trained beside encoder and projection head."""
        return None

    def __call__(self, batch: Batch) -> Loss:
        """Return mean attraction minus mean repulsion of all views.

        Args:
            batch: All views, (v, b, d), b >= 2.

        Returns:
            In [-4, 4], in the parts ``attraction`` (at least 0) and ``repulsion`` (at most 0).
            The gradient passes through the weights too.

        Raises:
            InvalidInput: If there is another number of views or fewer than two images.
        """
        check_views(batch.projections, views=self.views, name="cacr")
        cosines = cross_view_similarity(batch.projections, 1.0)
        itself = torch.isinf(cosines)
        cost = (2 - 2 * cosines.masked_fill(itself, 0.0)).clamp(min=0)
        image = torch.arange(batch.projections.shape[1], device=cost.device).repeat(self.views)
        same = image[:, None] == image[None, :]
        far = _expected(cost, self.attraction * cost, same & ~itself)
        near = _expected(cost, -self.repulsion * cost, ~same)
        return Loss.sum(attraction=far.mean(), repulsion=-near.mean())


def _expected(cost: torch.Tensor, logits: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
    """Mean cost of each row's pairs under a softmax over them, (n,)."""
    weights = torch.softmax(logits.masked_fill(~pairs, float("-inf")), dim=1)
    return (weights * cost).sum(dim=1)
