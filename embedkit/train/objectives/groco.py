"""GroCo: Shvetsova et al., Learning by Sorting, ICCV 2023."""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from embedkit.train.objective import Batch, Loss, Sizes, objectives
from embedkit.train.terms import check_views, exact_product, require, unit

__all__ = ["GroCo"]


@objectives.register("groco")
@dataclass(frozen=True)
class GroCo:
    """Sort positives and negatives by cosine; every positive must end above every negative.

    The cosines of each view with the other views of its image and with the nearest other
    images pass through a differentiable odd-even sorting network (Petersen et al. 2021: each
    comparison swaps by a Cauchy distribution function, after the activation replacement trick).
    It gives the probability that each of them ends among the positive ranks, and the loss is
    the binary cross entropy with where it belongs (section 3.2). Groups are sorted within
    themselves first, so only their order relative to one another costs.

    Attributes:
        views: Views of each image, at least 2.
        nearest: Nearest negatives of each view that are sorted, at least 1.
        steepness: Of a comparison, in one over cosines; above 0.
        replacement: Exponent of the activation replacement trick (lambda), in [0, 1).
        stop_gradient: Whether a view learns only as the one that is compared with others.
    """

    views: int = 2
    nearest: int = 10
    steepness: float = 1.0
    replacement: float = 0.25
    stop_gradient: bool = True

    needs = frozenset({"projections"})

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(self.views >= 2, "at least 2 views", self.views)
        require(self.nearest >= 1, "nearest of at least 1", self.nearest)
        require(self.steepness > 0, "a steepness above 0", self.steepness)
        require(0 <= self.replacement < 1, "a replacement in [0, 1)", self.replacement)

    def build(self, sizes: Sizes) -> nn.Module | None:
        """Nothing is trained beside encoder and projection head."""
        return None

    def __call__(self, batch: Batch) -> Loss:
        """Return the mean over all views as the one that is compared.

        Args:
            batch: All views, (v, b, d), b >= 2.

        Returns:
            At least 0; NaN of projections that are not finite.

        Raises:
            InvalidInput: If there is another number of views or fewer than two images.
        """
        check_views(batch.projections, views=self.views, name="groco")
        z = unit(batch.projections)
        losses = [self._sorted(z, anchor) for anchor in range(self.views)]
        return Loss.sum(order=torch.stack(losses).mean())

    def _sorted(self, z: torch.Tensor, anchor: int) -> torch.Tensor:
        """The loss of one view compared with the others."""
        compared = z[anchor]
        targets = z.detach() if self.stop_gradient else z
        others = [targets[i] for i in range(self.views) if i != anchor]
        positives = torch.stack([(compared * other).sum(dim=1) for other in others], dim=1)
        cosines = exact_product(compared, targets[anchor])
        itself = torch.eye(len(cosines), dtype=torch.bool, device=cosines.device)
        count = min(self.nearest, len(cosines) - 1)
        negatives = cosines.masked_fill(itself, float("-inf")).topk(count, dim=1).values
        ordered = torch.cat([negatives.flip(1), positives.sort(dim=1).values], dim=1)
        belongs = torch.arange(ordered.shape[1], device=z.device) >= count
        wanted = belongs.float().expand_as(ordered)
        # Rounding takes a probability out of [0, 1] by a few units in the last place.
        above = self._above(ordered, wanted).clamp(0, 1)
        # The cross entropy raises an error of its own on NaN, and the run would not know why.
        lost = above.isnan()
        loss = functional.binary_cross_entropy(above.masked_fill(lost, 0.5), wanted)
        return loss.masked_fill(lost.any(), torch.nan)

    def _above(self, values: torch.Tensor, positive_ranks: torch.Tensor) -> torch.Tensor:
        """Probability that each value ends at one of the positive ranks, as ``values``.

        The network is a product of one doubly stochastic matrix per layer. Its sum over the
        positive ranks is the indicator of these ranks, passed backwards through the layers,
        which never needs the product itself.
        """
        layers = []
        for layer in range(values.shape[1]):
            low = torch.arange(layer % 2, values.shape[1] - 1, 2, device=values.device)
            difference = values[:, low + 1] - values[:, low]
            keeps = self._is_ordered(difference)
            layers.append((low, keeps))
            values = _exchange(values, low, keeps)
        mass = positive_ranks
        for low, keeps in reversed(layers):
            mass = _exchange(mass, low, keeps)
        return mass

    def _is_ordered(self, difference: torch.Tensor) -> torch.Tensor:
        """Share of a pair that stays in place: the Cauchy distribution function."""
        # The derivative of |x| ** -lambda is infinite at 0, where the quotient is 0.
        size = difference.abs().clamp(min=1e-10)
        replaced = difference / size.pow(self.replacement)
        return torch.atan(self.steepness * replaced) / math.pi + 0.5


def _exchange(values: torch.Tensor, low: torch.Tensor, keeps: torch.Tensor) -> torch.Tensor:
    """Mix neighbours ``low`` and ``low + 1``: each keeps that share of its own.

    The matrix of one layer is symmetric, so this is both the layer and its transpose.
    """
    first, second = values[:, low], values[:, low + 1]
    mixed = values.clone()
    mixed[:, low] = keeps * first + (1 - keeps) * second
    mixed[:, low + 1] = (1 - keeps) * first + keeps * second
    return mixed
