"""NNCLR: Dwibedi et al., With a Little Help from My Friends, ICCV 2021."""

from dataclasses import dataclass

import torch
from torch import nn

from embedkit.encoders.heads import prediction_head
from embedkit.train.objective import Batch, Loss, Sizes, objectives
from embedkit.train.terms import Queue, built, check_views, exact_product, require, unit

__all__ = ["NNCLR", "PredictorAndSupport"]


class PredictorAndSupport(nn.Module):
    """A predictor, and the support set in which neighbours are sought.

    Args:
        dim: Dimensions of a projection.
        hidden: Width of the predictor's hidden layer.
        size: Vectors in the support set.
    """

    def __init__(self, dim: int, hidden: int, size: int) -> None:
        super().__init__()
        self.predictor = prediction_head(dim, hidden)
        self.support = Queue(size, dim)


@objectives.register("nnclr")
@dataclass(frozen=True)
class NNCLR:
    """SimCLR whose positive is a view's nearest neighbour among earlier images (eq. 2 to 4).

    Attributes:
        temperature: Divides the cosines; above 0.
        support: Projections that are remembered, at least 1 (the size of Q).
        hidden: Width of the predictor's hidden layer; 0 takes four times the projections'
            dimensions, at least 256.
    """

    temperature: float = 0.1
    support: int = 4096
    hidden: int = 0

    needs = frozenset({"projections"})
    views = 2

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(self.temperature > 0, "a temperature above 0", self.temperature)
        require(self.support >= 1, "a support of at least 1", self.support)
        require(self.hidden >= 0, "a hidden width of at least 0", self.hidden)

    def build(self, sizes: Sizes) -> nn.Module | None:
        """The predictor and the support set."""
        hidden = self.hidden or max(256, 4 * sizes.dim)
        return PredictorAndSupport(sizes.dim, hidden, self.support)

    def __call__(self, batch: Batch) -> Loss:
        """Return the sum of equation 3 in both directions, and remember the projections.

        Args:
            batch: Two views, (2, b, d), b >= 2, with predictor and support set.

        Returns:
            At least 0; ``2 * log(b)`` when nothing is told apart. The first part has the
            neighbours of the first view.

        Raises:
            InvalidInput: If the module is missing, there are not two views, or fewer than two
                images.
        """
        check_views(batch.projections, views=2, name="nnclr")
        module = built(batch, PredictorAndSupport)
        predicted = module.predictor(batch.projections.flatten(0, 1)).unflatten(0, (2, -1))
        predicted = unit(predicted)
        z = unit(batch.projections.detach())
        support = module.support.read()
        nearest = [support[exact_product(view, support).argmax(dim=1)] for view in z]
        module.support.push(z[0])
        return Loss.sum(
            first=self._contrast(nearest[0], predicted[1]),
            second=self._contrast(nearest[1], predicted[0]),
        )

    def _contrast(self, neighbours: torch.Tensor, predicted: torch.Tensor) -> torch.Tensor:
        """Equation 3, averaged over images."""
        logits = exact_product(neighbours, predicted) / self.temperature
        return (torch.logsumexp(logits, dim=1) - torch.diagonal(logits)).mean()
