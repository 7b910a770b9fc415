"""INTL: Weng et al., Modulate Your Spectrum in Self-Supervised Learning, ICLR 2024."""

from dataclasses import dataclass

import torch
from torch import nn

from embedkit.train.objective import Batch, Loss, Sizes, objectives
from embedkit.train.terms import check_views, covariance, require, unit

__all__ = ["INTL"]


@objectives.register("intl")
@dataclass(frozen=True)
class INTL:
    """Compare views after a few steps towards whitening, and hold their variances at 1.

    Newton's iteration for the inverse root of the covariance (IterNorm) amplifies small
    eigenvalues without blowing them up as exact whitening does. The trace loss brings the
    diagonal of what comes out to 1, which equal eigenvalues alone can do (section 4).

    Attributes:
        iterations: Newton steps (T), at least 1; beyond ten or so rounding grows again.
        trace: Weight of the trace loss (beta), at least 0. The paper takes
            0.01 * (log2(d) - 3), which is 0.04 for 128 dimensions.
    """

    iterations: int = 4
    trace: float = 0.04

    needs = frozenset({"projections"})
    views = 2

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(self.iterations >= 1, "iterations of at least 1", self.iterations)
        require(self.trace >= 0, "a trace weight of at least 0", self.trace)

    def build(self, sizes: Sizes) -> nn.Module | None:
        """Nothing is trained beside encoder and projection head."""
        return None

    def __call__(self, batch: Batch) -> Loss:
        """Return the mean squared distance of transformed unit vectors and both trace losses.

        Args:
            batch: Two views, (2, b, d), not normalised, b >= 2.

        Returns:
            At least 0, in the parts ``distance`` and ``trace``.

        Raises:
            InvalidInput: If there are not two views or fewer than two images.
        """
        check_views(batch.projections, views=2, name="intl")
        first, second = (self._transform(z) for z in batch.projections.float())
        apart = (unit(first) - unit(second)).square().sum(dim=1).mean()
        off = [(z.var(dim=0) - 1).square().sum() for z in (first, second)]
        return Loss.sum(distance=apart, trace=self.trace * (off[0] + off[1]))

    def _transform(self, z: torch.Tensor) -> torch.Tensor:
        """IterNorm: ``P_T (z - mean) / sqrt(trace)`` with ``P = (3 P - P^3 S) / 2``."""
        centred, spread = z - z.mean(dim=0), covariance(z)
        # A batch of equal vectors has the trace 0.
        trace = torch.diagonal(spread).sum().clamp(min=1e-12)
        with torch.autocast(z.device.type, enabled=False):
            root = torch.eye(z.shape[1], device=z.device)
            for _ in range(self.iterations):
                root = 1.5 * root - 0.5 * (root @ root @ root @ (spread / trace))
            return centred @ root / trace.sqrt()
