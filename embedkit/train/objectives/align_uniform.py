"""Wang and Isola, Understanding Contrastive Learning through Alignment and Uniformity, 2020."""

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

__all__ = ["AlignUniform"]


@objectives.register("align_uniform")
@dataclass(frozen=True)
class AlignUniform:
    """Draw views of an image together and spread all images over the sphere (section 4.1).

    Attributes:
        alignment: Weight of the mean distance between views.
        uniformity: Weight of the log mean Gaussian potential of all pairs of images.
        power: Exponent of the distance in alignment (alpha); above 0.
        sharpness: Of the Gaussian potential (t); above 0.
    """

    alignment: float = 1.0
    uniformity: float = 1.0
    power: float = 2.0
    sharpness: float = 2.0

    needs = frozenset({"projections"})
    views = 2

    def __post_init__(self) -> None:
        """Check the ranges."""
        weights = (self.alignment, self.uniformity)
        require(min(weights) >= 0, "weights of at least 0", weights)
        require(self.power > 0, "a power above 0", self.power)
        require(self.sharpness > 0, "a sharpness above 0", self.sharpness)

    def build(self, sizes: Sizes) -> nn.Module | None:
        """Nothing is trained beside encoder and projection head."""
        return None

    def __call__(self, batch: Batch) -> Loss:
        """Return the weighted sum of alignment and of both views' mean uniformity.

        Args:
            batch: Two views, (2, b, d), b >= 2.

        Returns:
            Of any sign; at least ``-4 * sharpness * uniformity``.

        Raises:
            InvalidInput: If there are not two views or fewer than two images.
        """
        check_views(batch.projections, views=2, name="align_uniform")
        first, second = unit(batch.projections)
        # The root of a power below 2 has no gradient at 0, where both views are equal.
        apart = (first - second).square().sum(dim=1).clamp(min=1e-12)
        spread = [log_mean_exp(-self.sharpness * squared_distances(z)) for z in (first, second)]
        return Loss.sum(
            alignment=self.alignment * apart.pow(self.power / 2).mean(),
            uniformity=self.uniformity * (spread[0] + spread[1]) / 2,
        )
