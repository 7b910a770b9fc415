"""TriBYOL: Li et al., Triplet BYOL for Self-Supervised Representation Learning, ICASSP 2022."""

from dataclasses import dataclass

from torch import nn

from embedkit.encoders.heads import prediction_head
from embedkit.train.objective import Batch, Loss, Sizes, objectives, supplied
from embedkit.train.terms import check_views, require, rising_momentum, unit

__all__ = ["TriBYOL"]


@objectives.register("tribyol")
@dataclass(frozen=True)
class TriBYOL:
    """BYOL from a first view to a second and to a third, and back: more pairs a small batch.

    The paper's two target networks are moved in turn, one per step, and so differ by one step
    of their average; here one teacher stands for both.

    As with BYOL, runs of some hundred steps want a momentum of about 0.9: there 0.99 left kNN
    no better than that of the untrained network.

    Attributes:
        momentum: Share of the teacher's old weights kept per step at the start, in [0, 1];
            it rises to 1 along a cosine.
        hidden: Width of the predictor's hidden layer; 0 takes four times the projections'
            dimensions, at least 256.
    """

    momentum: float = 0.99
    hidden: int = 0

    needs = frozenset({"projections", "teacher"})
    views = 3

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(0 <= self.momentum <= 1, "a momentum in [0, 1]", self.momentum)
        require(self.hidden >= 0, "a hidden width of at least 0", self.hidden)

    def build(self, sizes: Sizes) -> nn.Module | None:
        """The predictor: two layers from projections to projections."""
        return prediction_head(sizes.dim, self.hidden or max(256, 4 * sizes.dim))

    def teacher_momentum(self, progress: float) -> float:
        """BYOL's, section 3.2."""
        return rising_momentum(self.momentum, progress)

    def __call__(self, batch: Batch) -> Loss:
        """Return the sum of both pairs, each the mean of its two directions.

        Args:
            batch: Three views of student and teacher, (3, b, d), b >= 2, and the predictor.

        Returns:
            In [0, 8]; 4 when prediction and target are unrelated.

        Raises:
            InvalidInput: If teacher or predictor is missing, there are not three views, or
                fewer than two images.
        """
        check_views(batch.projections, views=3, name="tribyol")
        targets = unit(supplied(batch.teacher, "teacher")).detach()
        predictor = supplied(batch.module, "module")
        predicted = predictor(batch.projections.flatten(0, 1)).view_as(batch.projections)
        predicted = unit(predicted)
        # The first view is in both pairs; the second and the third are never compared.
        pairs = [
            2 - (predicted[0] * targets[v] + predicted[v] * targets[0]).sum(dim=-1).mean()
            for v in (1, 2)
        ]
        return Loss.sum(second=pairs[0], third=pairs[1])
