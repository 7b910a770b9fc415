"""W-MSE: Ermolov et al., Whitening for Self-Supervised Representation Learning, ICML 2021."""

from dataclasses import dataclass

import torch
from torch import nn

from embedkit.train.objective import Batch, Loss, Sizes, objectives
from embedkit.train.terms import check_views, covariance, require, unit

__all__ = ["Whitening"]

_WIDE = 10.0
"""Mean variance of a dimension above which the identity is scaled along with it."""


@objectives.register("whitening")
@dataclass(frozen=True)
class Whitening:
    """Mean squared distance of views after their batch is whitened (W-MSE, section 3).

    A whitened batch has the identity as its covariance, so it cannot collapse. Its estimate
    needs more images than dimensions, better many times as many. In short runs of a small
    network it gains little over no training: docs/leaderboard.md.

    Attributes:
        slice_size: Images that are whitened together, drawn anew for each pass; 0 takes the
            whole batch. What does not fill a slice is left out of the pass.
        passes: How often a batch is cut into slices, at least 1; one is enough for the whole.
        shrinkage: Share of the identity in the covariance, in (0, 1).
    """

    slice_size: int = 0
    passes: int = 1
    shrinkage: float = 1e-3

    needs = frozenset({"projections"})
    views = 2

    def __post_init__(self) -> None:
        """Check the ranges."""
        size = self.slice_size
        require(size == 0 or size >= 2, "a slice_size of 0 or at least 2", size)
        require(self.passes >= 1, "passes of at least 1", self.passes)
        require(0 < self.shrinkage < 1, "a shrinkage in (0, 1)", self.shrinkage)

    def build(self, sizes: Sizes) -> nn.Module | None:
        """Nothing is trained beside encoder and projection head."""
        return None

    def __call__(self, batch: Batch) -> Loss:
        """Return the mean squared distance of whitened unit vectors.

        Args:
            batch: Two views, (2, b, d), not normalised, b >= 2.

        Returns:
            In [0, 4]; 2 when the views are unrelated; NaN of projections that are not finite.

        Raises:
            InvalidInput: If there are not two views or fewer than two images.
        """
        check_views(batch.projections, views=2, name="whitening")
        z, b = batch.projections.float(), batch.projections.shape[1]
        size = min(self.slice_size or b, b)
        costs = []
        for _ in range(self.passes):
            order = torch.arange(b, device=z.device)
            if size < b:
                order = torch.randperm(b, generator=batch.generator, device=z.device)
            for piece in order[: b - b % size].reshape(-1, size):
                first, second = (unit(self._whiten(view[piece])) for view in z)
                costs.append((first - second).square().sum(dim=1).mean())
        return Loss.sum(distance=torch.stack(costs).mean())

    def _whiten(self, z: torch.Tensor) -> torch.Tensor:
        """``W (z - mean)`` with ``W' W`` the inverse covariance, by Cholesky's triangle.

        The identity is added as it is, as the paper does. Beside a covariance of very large
        values a share of 1 would be rounded away, and the triangle would not exist: above a
        mean variance of 10, where projections hardly ever are, the identity grows with it.

        NaN where there is no such triangle: the run then stops with its batch.
        """
        centred = z - z.mean(dim=0)
        identity = torch.eye(z.shape[1], device=z.device)
        with torch.autocast(z.device.type, enabled=False):
            spread = covariance(z)
            scale = (spread.diagonal().mean() / _WIDE).clamp(min=1.0)
            shrunk = torch.lerp(spread, identity * scale, self.shrinkage)
            triangle, failed = torch.linalg.cholesky_ex(shrunk)
            triangle = torch.where(failed == 0, triangle, torch.nan)
            solved: torch.Tensor = torch.linalg.solve_triangular(
                triangle, centred.T, upper=False
            )
        return solved.T
