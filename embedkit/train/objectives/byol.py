"""BYOL: Grill et al., Bootstrap Your Own Latent, NeurIPS 2020."""

import math
from dataclasses import dataclass

from torch import nn

from embedkit.encoders.heads import prediction_head
from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch, Loss, Sizes, objectives, supplied
from embedkit.train.terms import check_views, unit

__all__ = ["BYOL"]


@objectives.register("byol")
@dataclass(frozen=True)
class BYOL:
    """Predict the averaged network's projection of the other view (eq. 2, both directions).

    The paper's momentum averages over hundreds of steps. In a run of 312 steps it is slow: kNN
    0.742 with 0.99 and 0.758 with 0.9 (10,000 Fashion-MNIST images, tiny ResNet, one seed), and
    it goes on to learn: 0.763 with 0.8 after 312 steps, 0.782 after 624.

    Attributes:
        momentum: Share of the teacher's old weights kept per step at the start, in [0, 1];
            it rises to 1 along a cosine (tau).
        hidden: Width of the predictor's hidden layer; 0 takes four times the projections'
            dimensions, at least 256.
    """

    momentum: float = 0.99
    hidden: int = 0

    needs = frozenset({"projections", "teacher"})
    views = 2

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 <= self.momentum <= 1 or self.hidden < 0:
            raise InvalidInput(
                "expected a momentum in [0, 1] and a hidden width of at least 0, "
                f"got {self.momentum} and {self.hidden}"
            )

    def build(self, sizes: Sizes) -> nn.Module | None:
        """The predictor: two layers from projections to projections."""
        return prediction_head(sizes.dim, self.hidden or max(256, 4 * sizes.dim))

    def teacher_momentum(self, progress: float) -> float:
        """``1 - (1 - momentum) * (cos(pi * progress) + 1) / 2``, section 3.2."""
        return 1 - (1 - self.momentum) * (math.cos(math.pi * progress) + 1) / 2

    def __call__(self, batch: Batch) -> Loss:
        """Return the sum of both directions' mean squared distance of unit vectors.

        Args:
            batch: Two views of student and teacher, each (2, b, d), b >= 2, and the predictor.

        Returns:
            In [0, 8]; 4 when prediction and target are unrelated.

        Raises:
            InvalidInput: If teacher or predictor is missing, there are not two views, or fewer
                than two images.
        """
        check_views(batch.projections, views=2, name="byol")
        teacher = supplied(batch.teacher, "teacher").detach()
        predictor = supplied(batch.module, "module")
        predicted = predictor(batch.projections.flatten(0, 1)).unflatten(0, (2, -1))
        cosine = (unit(predicted) * unit(teacher).flip(0)).sum(dim=-1)
        first, second = (2 - 2 * cosine).mean(dim=1)
        return Loss.sum(first=first, second=second)
