"""Patacchiola and Storkey, Self-Supervised Relational Reasoning, NeurIPS 2020."""

from dataclasses import dataclass
from itertools import combinations

import torch
from torch import nn
from torch.nn import functional

from embedkit.train.objective import Batch, Loss, Sizes, objectives, supplied
from embedkit.train.terms import built, check_views, require

__all__ = ["RelationalReasoning"]

_MULTIPLIER, _MODULUS = 2654435761, 2**32
"""Knuth's multiplicative hash, which scatters neighbouring numbers."""


class _Relation(nn.Module):
    """From two features, one after the other, to the logit that they show one image."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 * dim, hidden),
            nn.BatchNorm1d(hidden),
            nn.LeakyReLU(),
            nn.Linear(hidden, 1),
        )

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """(n,) float32 from two (n, d)."""
        logits: torch.Tensor = self.layers(torch.cat([first, second], dim=1))
        return logits.squeeze(1).float()


@objectives.register("relational_reasoning")
@dataclass(frozen=True)
class RelationalReasoning:
    """Tell whether two views show the same image: a small network judges pairs (eq. 2 and 3).

    Every pair of views of an image is a positive pair, and beside each stands one of the same
    two views in which the second shows another image of the batch. Which one is fixed by the
    images' indices, scattered, so that neither their order in the batch nor that of the data
    decides.

    Attributes:
        views: Of each image, at least 2; cost grows linearly, pairs quadratically (K).
        hidden: Width of the relation network.
        focus: Exponent by which pairs that are already judged well weigh less, at least 0;
            0 weighs all alike (gamma).
    """

    views: int = 4
    hidden: int = 256
    focus: float = 2.0

    needs = frozenset({"indices"})

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(self.views >= 2, "at least 2 views", self.views)
        require(self.hidden >= 1, "a hidden width of at least 1", self.hidden)
        require(self.focus >= 0, "a focus of at least 0", self.focus)

    def build(self, sizes: Sizes) -> nn.Module | None:
        """The relation network."""
        return _Relation(sizes.feature_dim, self.hidden)

    def __call__(self, batch: Batch) -> Loss:
        """Return the mean binary cross entropy over positive and negative pairs.

        Args:
            batch: Features of all views, (v, b, f), b >= 2, indices, and the module.

        Returns:
            At least 0.

        Raises:
            InvalidInput: If the indices are missing, there is another number of views, or fewer
                than two images.
        """
        check_views(batch.features, views=self.views, name="relational_reasoning")
        module = built(batch, _Relation)
        other = _others(supplied(batch.indices, "indices"))
        pairs = list(combinations(batch.features, 2))
        first = torch.cat([a for a, _ in pairs])
        same = torch.cat([b for _, b in pairs])
        different = torch.cat([b[other] for _, b in pairs])
        logits = module(torch.cat([first, first]), torch.cat([same, different]))
        truth = torch.cat([torch.ones_like(logits[: len(first)]), logits.new_zeros(len(first))])
        losses = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        wrong = (truth - torch.sigmoid(logits.detach())).abs()
        weighted = (losses * wrong**self.focus).unflatten(0, (2, -1)).mean(dim=1) / 2  # type: ignore[no-untyped-call]
        return Loss.sum(same=weighted[0], different=weighted[1])


def _others(indices: torch.Tensor) -> torch.Tensor:
    """For every image of the batch the position of another one, each exactly once."""
    order = (indices * _MULTIPLIER % _MODULUS).argsort()
    other = torch.empty_like(order)
    other[order] = order.roll(1)
    return other
