"""VICReg: Bardes, Ponce and LeCun, Variance-Invariance-Covariance Regularization, ICLR 2022."""

from dataclasses import dataclass

from torch import nn

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch, Loss, Sizes, objectives
from embedkit.train.terms import check_views, covariance_penalty, variance_hinge

__all__ = ["VICReg"]


@objectives.register("vicreg")
@dataclass(frozen=True)
class VICReg:
    """Variance-invariance-covariance regularisation of two views (eq. 1 to 6).

    Attributes:
        invariance: Weight of the mean squared distance between views (lambda).
        variance: Weight of the hinge on the standard deviation of each dimension (mu).
        covariance: Weight of the squared off-diagonal covariances (nu).
        spread: Standard deviation below which a dimension is penalised, in the units of the
            projections (gamma).
    """

    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0
    spread: float = 1.0

    needs = frozenset({"projections"})
    views = 2

    def __post_init__(self) -> None:
        """Check the weights."""
        weights = (self.invariance, self.variance, self.covariance, self.spread)
        if min(weights) < 0:
            raise InvalidInput(f"expected weights and spread of at least 0, got {weights}")

    def build(self, sizes: Sizes) -> nn.Module | None:
        """Nothing is trained beside encoder and projection head."""
        return None

    def __call__(self, batch: Batch) -> Loss:
        """Return the weighted sum of the three terms; variance and covariance of both views.

        Args:
            batch: Two views, (2, b, d), not normalised. Needs b >= 2, because a single image
                has no variance.

        Returns:
            At least 0, with its three weighted parts.

        Raises:
            InvalidInput: If there are not two views or fewer than two images.
        """
        check_views(batch.projections, views=2, name="vicreg")
        first, second = batch.projections.float()
        # Equation 5 sums over dimensions and equation 6 adds the two variances; the authors'
        # code, to which the published weights belong, takes the mean of both.
        return Loss.sum(
            invariance=self.invariance * (first - second).square().mean(),
            variance=self.variance
            * (variance_hinge(first, self.spread) + variance_hinge(second, self.spread))
            / 2,
            covariance=self.covariance
            * (covariance_penalty(first) + covariance_penalty(second)),
        )
