"""Zhao et al., Well-classified Examples are Underestimated in Classification, AAAI 2022."""

from dataclasses import dataclass

import torch

from embedkit.train.objective import Batch, Loss, objectives, supplied
from embedkit.train.terms import Classifying, check_views, require, soft_cross_entropy

__all__ = ["WellClassified"]


@objectives.register("well_classified")
@dataclass(frozen=True)
class WellClassified(Classifying):
    """Cross entropy with a bonus for images that are already classified well.

    The encouraging loss: to ``-log p`` is added ``log(1 - p)``, so that the gradient does not
    fade as p nears 1. Beyond ``end`` = e the bonus goes on along its tangent,
    ``log(1 - e) - (p - e) / (1 - e)``, the paper's conservative form, which stays finite.
    The classifier is exported.

    Attributes:
        end: Probability beyond which the bonus is linear, in [0, 1); 0 is a linear bonus
            throughout (log-end).
    """

    end: float = 0.75

    needs = frozenset({"targets"})
    views = 1

    def __post_init__(self) -> None:
        """Check the range."""
        require(0 <= self.end < 1, "an end in [0, 1)", self.end)

    def __call__(self, batch: Batch) -> Loss:
        """Return the mean cross entropy less the mean bonus, mixed labels by their shares.

        Args:
            batch: One view's features, (1, b, f), b >= 2, targets, and the classifier.

        Returns:
            Of any sign, at least ``log(1 - end) - 1``.

        Raises:
            InvalidInput: If targets or classifier are missing, there is not one view, or fewer
                than two images.
        """
        check_views(batch.features, views=1, name="well_classified")
        classifier = supplied(batch.module, "module")
        targets = supplied(batch.targets, "targets")[0]
        logits = classifier(batch.features[0]).float()
        p = torch.softmax(logits, dim=1)
        # log(1 - p) is taken below the end alone: at p = 1 it is minus infinity, and so is the
        # gradient that a branch not taken would still pass on.
        curved = torch.log1p(-p.clamp(max=self.end))
        tangent = (p - self.end).clamp(min=0) / (1 - self.end)
        bonus = (targets * (curved - tangent)).sum(dim=1)
        return Loss.sum(entropy=soft_cross_entropy(logits, targets).mean(), bonus=bonus.mean())
