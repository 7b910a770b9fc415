"""Tan et al., Contrastive Learning Is Spectral Clustering On Similarity Graph, ICLR 2024."""

from dataclasses import dataclass

import torch
from torch import nn

from embedkit.train.objective import Batch, Loss, Sizes, objectives
from embedkit.train.terms import check_views, cross_view_similarity, pair_log_softmax, require

__all__ = ["KernelMixture"]


@objectives.register("kernel_mixture")
@dataclass(frozen=True)
class KernelMixture:
    """SimCLR with the sum of a Gaussian and a Laplacian kernel (Kernel-InfoNCE, simple sum).

    The similarity of two unit vectors at distance r is
    ``K = exp(-r^2 / gaussian) + exp(-r / laplacian)``, and the loss of view i with positive p
    ``-log K(z_i, z_p) / sum_j!=i K(z_i, z_j)``. The Gaussian kernel alone is SimCLR at
    temperature ``gaussian / 2``; the Laplacian one falls more slowly far away.

    Attributes:
        gaussian: Scale of the squared distance (tau_2); above 0.
        laplacian: Scale of the distance (tau_1); above 0.
    """

    gaussian: float = 0.4
    laplacian: float = 0.4

    needs = frozenset({"projections"})
    views = 2

    def __post_init__(self) -> None:
        """Check the scales."""
        scales = (self.gaussian, self.laplacian)
        require(min(scales) > 0, "scales above 0", scales)

    def build(self, sizes: Sizes) -> nn.Module | None:
        """Nothing is trained beside encoder and projection head."""
        return None

    def __call__(self, batch: Batch) -> Loss:
        """Return the mean over both directions of all positive pairs.

        Args:
            batch: Two views, (2, b, d), b >= 2.

        Returns:
            At least 0.

        Raises:
            InvalidInput: If there are not two views or fewer than two images.
        """
        check_views(batch.projections, views=2, name="kernel_mixture")
        cosines = cross_view_similarity(batch.projections, 1.0)
        itself = torch.isinf(cosines)
        # The root has no gradient at 0, where two views are equal.
        squares = (2 - 2 * cosines.masked_fill(itself, 0.0)).clamp(min=1e-8)
        log_kernel = torch.logaddexp(-squares / self.gaussian, -squares.sqrt() / self.laplacian)
        log_kernel = log_kernel.masked_fill(itself, float("-inf"))
        b = batch.projections.shape[1]
        positives = torch.eye(2 * b, dtype=torch.bool, device=cosines.device).roll(b, dims=1)
        return Loss.sum(contrast=-pair_log_softmax(log_kernel, positives).mean())
