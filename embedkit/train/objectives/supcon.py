"""SupCon: Khosla et al., Supervised Contrastive Learning, NeurIPS 2020."""

from dataclasses import dataclass

import torch
from torch import nn

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch, Loss, Sizes, objectives, supplied
from embedkit.train.terms import check_views, cross_view_similarity, pair_log_softmax

__all__ = ["SupCon"]


@objectives.register("supcon")
@dataclass(frozen=True)
class SupCon:
    """Draw every view of every image of a class together (L_out, eq. 2).

    Attributes:
        temperature: Divides the cosines; above 0. The paper uses 0.1.
    """

    temperature: float = 0.1

    needs = frozenset({"projections", "labels"})
    views = 2

    def __post_init__(self) -> None:
        """Check the temperature."""
        if self.temperature <= 0:
            raise InvalidInput(f"expected a temperature above 0, got {self.temperature}")

    def build(self, sizes: Sizes) -> nn.Module | None:
        """Nothing is trained beside encoder and projection head."""
        return None

    def __call__(self, batch: Batch) -> Loss:
        """Return the mean over all views; equal to SimCLR's when every label differs.

        Args:
            batch: Two views, (2, b, d), b >= 2, with labels.

        Returns:
            At least 0.

        Raises:
            InvalidInput: If there are no labels, not two views or fewer than two images.
        """
        check_views(batch.projections, views=2, name="supcon")
        labels = supplied(batch.labels, "labels").repeat(2)
        similarity = cross_view_similarity(batch.projections, self.temperature)
        itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        positives = (labels[:, None] == labels[None, :]) & ~itself
        return Loss.sum(contrast=-pair_log_softmax(similarity, positives).mean())
