"""SimCLR: Chen et al., A Simple Framework for Contrastive Learning, ICML 2020."""

from dataclasses import dataclass

import torch
from torch import nn

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch, Loss, Sizes, objectives
from embedkit.train.terms import check_views, cross_view_similarity, pair_log_softmax

__all__ = ["SimCLR"]


@objectives.register("simclr")
@dataclass(frozen=True)
class SimCLR:
    """Tell the other view of an image from every other image of the batch (NT-Xent, eq. 1).

    Attributes:
        temperature: Divides the cosines; lower looks harder at the nearest images. Above 0.
    """

    temperature: float = 0.2

    needs = frozenset({"projections"})
    views = 2

    def __post_init__(self) -> None:
        """Check the temperature."""
        if self.temperature <= 0:
            raise InvalidInput(f"expected a temperature above 0, got {self.temperature}")

    def build(self, sizes: Sizes) -> nn.Module | None:
        """Nothing is trained beside encoder and projection head."""
        return None

    def __call__(self, batch: Batch) -> Loss:
        """Return the mean over both directions of all positive pairs.

        Args:
            batch: Two views, (2, b, d), b >= 2.

        Returns:
            At least 0; ``log(2 * b - 1)`` when nothing is told apart.

        Raises:
            InvalidInput: If there are not two views or fewer than two images.
        """
        check_views(batch.projections, views=2, name="simclr")
        similarity = cross_view_similarity(batch.projections, self.temperature)
        # Row i of the first view pairs with row i of the second, so the positives lie b to the
        # right of the diagonal and, for the second view, b to the left.
        b = batch.projections.shape[1]
        positives = torch.eye(2 * b, dtype=torch.bool, device=similarity.device).roll(b, dims=1)
        return Loss.sum(contrast=-pair_log_softmax(similarity, positives).mean())
