"""Hallucinator: Wu et al., Hallucination Improves Unsupervised Learning, ICCV 2023."""

from dataclasses import dataclass

import torch
from torch import nn

from embedkit.train.objective import Batch, Loss, Sizes, objectives
from embedkit.train.terms import built, check_views, exact_product, image_pairs, require, unit

__all__ = ["Hallucinator"]


@objectives.register("hallucinator")
@dataclass(frozen=True)
class Hallucinator:
    """SimCLR with a further positive of each view, made in the space of projections.

    A view is extrapolated away from the other view of its image by a random share, and passed
    through a small perceptron that is trained along; its other view must be told apart from
    all other images by what comes out (asymmetric extrapolation and non-linear
    hallucination): of view z with partner z', ``h = g(z + r (z - z'))`` with r uniform in
    [0, ``extrapolation``], and the loss is ``InfoNCE(z, z') + weight InfoNCE(h, z')``.
    Only one side of a hallucinated pair is made up. This follows the method's
    description; the authors have published no code to compare with.

    Attributes:
        temperature: Divides the cosines; above 0.
        weight: Of the hallucinated pairs, at least 0.
        extrapolation: Largest share of the difference that is added, at least 0.
    """

    temperature: float = 0.2
    weight: float = 1.0
    extrapolation: float = 0.5

    needs = frozenset({"projections"})
    views = 2

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(self.temperature > 0, "a temperature above 0", self.temperature)
        require(self.weight >= 0, "a weight of at least 0", self.weight)
        require(self.extrapolation >= 0, "an extrapolation of at least 0", self.extrapolation)

    def build(self, sizes: Sizes) -> nn.Module | None:
        """The perceptron: two layers from projections to projections."""
        return nn.Sequential(
            nn.Linear(sizes.dim, sizes.dim), nn.ReLU(), nn.Linear(sizes.dim, sizes.dim)
        )

    def __call__(self, batch: Batch) -> Loss:
        """Return the mean over both directions of all pairs, of views and of hallucinations.

        Args:
            batch: Two views, (2, b, d), b >= 2, and the perceptron.

        Returns:
            At least 0, in the parts ``views`` (SimCLR's loss) and ``hallucinated``.

        Raises:
            InvalidInput: If the module is missing, there are not two views, or fewer than two
                images.
        """
        check_views(batch.projections, views=2, name="hallucinator")
        z = unit(batch.projections)
        share = self.extrapolation * torch.rand(
            *z.shape[:2], 1, generator=batch.generator, device=z.device
        )
        away = z + share * (z - z.flip(0))
        made = unit(built(batch, nn.Sequential)(away.flatten(0, 1).to(batch.projections.dtype)))

        pairs = image_pairs(batch.projections, self.temperature)
        similarity = exact_product(made, z.flatten(0, 1)) / self.temperature
        others = torch.isfinite(pairs.negatives)
        invented = similarity.masked_fill(~others, float("-inf"))
        positives = (made * z.flip(0).flatten(0, 1)).sum(dim=1) / self.temperature
        return Loss.sum(
            views=_contrast(pairs.positives, pairs.negatives),
            hallucinated=self.weight * _contrast(positives, invented),
        )


def _contrast(positives: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
    """Mean minus log-probability of the positive."""
    everything = torch.logaddexp(positives, torch.logsumexp(negatives, dim=1))
    return (everything - positives).mean()
