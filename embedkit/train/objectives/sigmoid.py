"""SigLIP: Zhai et al., Sigmoid Loss for Language Image Pre-Training, ICCV 2023."""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from embedkit.train.objective import Batch, Loss, Sizes, objectives
from embedkit.train.terms import built, check_views, exact_product, require, unit

__all__ = ["ScaleAndBias", "Sigmoid"]


class ScaleAndBias(nn.Module):
    """The learned scale and bias of the logits.

    Args:
        temperature: The scale starts at one over this.
        bias: At the start.
    """

    def __init__(self, temperature: float, bias: float) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))
        self.bias = nn.Parameter(torch.tensor(bias))

    def forward(self, cosines: torch.Tensor) -> torch.Tensor:
        """The logits, in float32."""
        return cosines * self.log_scale.float().exp() + self.bias.float()


@objectives.register("sigmoid")
@dataclass(frozen=True)
class Sigmoid:
    """Say of each pair of views alone whether it shows one image (section 3.2).

    The paper pairs images with texts; here the first view stands for one and the second for
    the other.

    Attributes:
        temperature: One over the scale of the cosines at the start; above 0 (t' = log 10).
        bias: Of the logits at the start (b); the paper's -10 says "no" to all pairs.
    """

    temperature: float = 0.1
    bias: float = -10.0

    needs = frozenset({"projections"})
    views = 2

    def __post_init__(self) -> None:
        """Check the temperature."""
        require(self.temperature > 0, "a temperature above 0", self.temperature)

    def build(self, sizes: Sizes) -> nn.Module | None:
        """The scale and the bias."""
        return ScaleAndBias(self.temperature, self.bias)

    def __call__(self, batch: Batch) -> Loss:
        """Return the sum over all pairs of views, over the number of images.

        Args:
            batch: Two views, (2, b, d), b >= 2, with scale and bias.

        Returns:
            At least 0, in the parts of the b positive and the b * (b - 1) negative pairs.

        Raises:
            InvalidInput: If the module is missing, there are not two views, or fewer than two
                images.
        """
        check_views(batch.projections, views=2, name="sigmoid")
        first, second = unit(batch.projections)
        logits = built(batch, ScaleAndBias)(exact_product(first, second))
        costs = functional.softplus(logits)
        agreeing = torch.diagonal(logits)
        return Loss.sum(
            positive=functional.softplus(-agreeing).mean(),
            negative=(costs.sum() - torch.diagonal(costs).sum()) / len(logits),
        )
