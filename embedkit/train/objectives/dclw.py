"""DCLW: the weighted form of Yeh et al., Decoupled Contrastive Learning, ECCV 2022."""

from dataclasses import dataclass

import torch
from torch import nn

from embedkit.train.objective import Batch, Loss, Sizes, objectives
from embedkit.train.terms import check_views, image_pairs, require

__all__ = ["DCLW"]


@objectives.register("dclw")
@dataclass(frozen=True)
class DCLW:
    """DCL that pulls harder on positive pairs that are far apart (L_DCW, section 3.3).

    Attributes:
        temperature: Divides the cosines; above 0.
        sigma: Width of the negative von Mises-Fisher weights
            ``2 - exp(cosine / sigma) / mean(exp(cosine / sigma))``; above 0.
            Wider is more even.
    """

    temperature: float = 0.1
    sigma: float = 0.5

    needs = frozenset({"projections"})
    views = 2

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(self.temperature > 0, "a temperature above 0", self.temperature)
        require(self.sigma > 0, "a sigma above 0", self.sigma)

    def build(self, sizes: Sizes) -> nn.Module | None:
        """Nothing is trained beside encoder and projection head."""
        return None

    def __call__(self, batch: Batch) -> Loss:
        """Return the mean over both directions of all positive pairs.

        Args:
            batch: Two views, (2, b, d), b >= 2.

        Returns:
            Of any sign, in the two parts of DCL. No gradient passes through the weights.

        Raises:
            InvalidInput: If there are not two views or fewer than two images.
        """
        check_views(batch.projections, views=2, name="dclw")
        pairs = image_pairs(batch.projections, self.temperature)
        cosines = pairs.positives.detach() * self.temperature
        weights = 2 - torch.softmax(cosines / self.sigma, dim=0) * len(cosines)
        return Loss.sum(
            attraction=-(weights * pairs.positives).mean(),
            repulsion=torch.logsumexp(pairs.negatives, dim=1).mean(),
        )
