"""Dufumier et al., Prior Knowledge in Contrastive Learning with Kernel, ICML 2023."""

from dataclasses import dataclass

from torch import nn

from embedkit.train.objective import Batch, Loss, Sizes, objectives
from embedkit.train.terms import (
    check_views,
    log_mean_exp,
    require,
    squared_distances,
    unit,
)

__all__ = ["DecoupledUniformity"]


@objectives.register("decoupled_uniformity")
@dataclass(frozen=True)
class DecoupledUniformity:
    """Spread the mean of each image's views over the ball (decoupled uniformity, section 3).

    A mean of unit vectors is long only where they agree, so the one term also aligns the
    views. This is the loss without a prior: its kernel is the identity.

    Attributes:
        sharpness: Of the Gaussian potential (t); above 0.
    """

    sharpness: float = 2.0

    needs = frozenset({"projections"})
    views = 2

    def __post_init__(self) -> None:
        """Check the sharpness."""
        require(self.sharpness > 0, "a sharpness above 0", self.sharpness)

    def build(self, sizes: Sizes) -> nn.Module | None:
        """Nothing is trained beside encoder and projection head."""
        return None

    def __call__(self, batch: Batch) -> Loss:
        """Return the log mean Gaussian potential of all pairs of images' mean views.

        Args:
            batch: Two views, (2, b, d), b >= 2.

        Returns:
            In [-4 * sharpness, 0].

        Raises:
            InvalidInput: If there are not two views or fewer than two images.
        """
        check_views(batch.projections, views=2, name="decoupled_uniformity")
        centroids = unit(batch.projections).mean(dim=0)
        potential = log_mean_exp(-self.sharpness * squared_distances(centroids))
        return Loss.sum(uniformity=potential)
