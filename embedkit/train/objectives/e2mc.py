"""E2MC: Chakraborty et al., Effective Entropy Maximization for Embeddings, ECCV 2024."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from embedkit.train.objective import Batch, Loss, Sizes, objectives
from embedkit.train.terms import check_views, covariance_penalty, require, variance_hinge

__all__ = ["E2MC"]


@objectives.register("e2mc")
@dataclass(frozen=True)
class E2MC:
    """VICReg with each dimension's entropy raised and their dependence lowered.

    Projections are brought into the unit cube. There the largest entropy is that of the
    uniform distribution, which has uniform dimensions without covariance: two conditions in
    one and two dimensions that a batch can estimate:
    ``base L_VICReg - entropy mean_j H(u_j) + covariance mean over views of
    sum_j!=k cov(u_j, u_k)^2 / d`` with u the squashed projections. H is estimated by m-spacings
    of the n sorted values, ``mean_i log((n + 1) / m (u_(i+m) - u_(i)))``, m the root of n.
    The paper adds it to the loss that a finished encoder was trained with, for a few epochs
    more.

    Attributes:
        entropy: Weight of minus the mean entropy of a dimension, at least 0.
        covariance: Weight of the squared covariances in the cube, at least 0.
        squash: ``sigmoid``, or ``gaussian``, the normal distribution function.
        base: Weight of VICReg's loss with its own weights 25, 25 and 1, at least 0.
    """

    entropy: float = 10.0
    covariance: float = 100.0
    squash: Literal["sigmoid", "gaussian"] = "sigmoid"
    base: float = 1.0

    needs = frozenset({"projections"})
    views = 2

    def __post_init__(self) -> None:
        """Check the weights."""
        weights = (self.entropy, self.covariance, self.base)
        require(min(weights) >= 0, "weights of at least 0", weights)

    def build(self, sizes: Sizes) -> nn.Module | None:
        """Nothing is trained beside encoder and projection head."""
        return None

    def __call__(self, batch: Batch) -> Loss:
        """Return the weighted sum of VICReg's terms and of both views' two criteria.

        Args:
            batch: Two views, (2, b, d), not normalised, b >= 2.

        Returns:
            Of any sign, in five weighted parts.

        Raises:
            InvalidInput: If there are not two views or fewer than two images.
        """
        check_views(batch.projections, views=2, name="e2mc")
        first, second = batch.projections.float()
        cubes = [self._squashed(z) for z in (first, second)]
        hinges = variance_hinge(first, 1.0) + variance_hinge(second, 1.0)
        penalties = covariance_penalty(first) + covariance_penalty(second)
        return Loss.sum(
            invariance=self.base * 25 * (first - second).square().mean(),
            variance=self.base * 25 * hinges / 2,
            covariance=self.base * penalties,
            entropy=-self.entropy * (_entropy(cubes[0]) + _entropy(cubes[1])) / 2,
            dependence=self.covariance
            * (covariance_penalty(cubes[0]) + covariance_penalty(cubes[1]))
            / 2,
        )

    def _squashed(self, z: torch.Tensor) -> torch.Tensor:
        """Every coordinate in (0, 1)."""
        if self.squash == "sigmoid":
            return torch.sigmoid(z)
        return 0.5 * (1 + torch.erf(z / math.sqrt(2)))


def _entropy(cube: torch.Tensor, epsilon: float = 1e-7) -> torch.Tensor:
    """Mean over dimensions of the m-spacing estimate; 0 is uniform, the most there is.

    Args:
        cube: (b, d) in [0, 1], b >= 2.
        epsilon: Added to a spacing, since equal values have the entropy minus infinity.
    """
    b = len(cube)
    m = round(math.sqrt(b))
    ordered = cube.sort(dim=0).values
    spacing = (ordered[m:] - ordered[:-m]) * ((b + 1) / m)
    return torch.log(spacing + epsilon).mean()
