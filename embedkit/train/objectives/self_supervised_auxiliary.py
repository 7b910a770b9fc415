"""Hendrycks et al., Using Self-Supervised Learning Can Improve Robustness, NeurIPS 2019."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from embedkit.train.batch import Transformed
from embedkit.train.objective import Batch, Loss, Sizes, objectives, supplied
from embedkit.train.terms import QUARTERS, built, check_views, quarter_turns, require

__all__ = ["SelfSupervisedAuxiliary"]


class _Classifiers(nn.Module):
    """Two linear layers on the same features."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.label = nn.Linear(dim, classes)
        self.turn = nn.Linear(dim, QUARTERS)


@objectives.register("self_supervised_auxiliary")
@dataclass(frozen=True)
class SelfSupervisedAuxiliary:
    """Classify the upright image, and beside it tell by which quarter an image was turned.

    Section 3: cross entropy of the label plus a weight times that of the turn. The layer for
    labels is exported.

    Attributes:
        turns: Weight of the turn, at least 0 (lambda).
    """

    turns: float = 0.5

    needs = frozenset({"labels"})
    views = QUARTERS
    drawn = 1

    def __post_init__(self) -> None:
        """Check the weight."""
        require(self.turns >= 0, "a weight of at least 0", self.turns)

    def build(self, sizes: Sizes) -> nn.Module | None:
        """Both classifiers."""
        return _Classifiers(sizes.feature_dim, sizes.classes)

    def classifier(self, module: nn.Module) -> nn.Linear:
        """The classifier of labels."""
        linear = module.get_submodule("label")
        assert isinstance(linear, nn.Linear)
        return linear

    def transform(self, views: torch.Tensor, generator: torch.Generator) -> Transformed:
        """The augmented view in its four turns."""
        return Transformed(quarter_turns(views[0]))

    def __call__(self, batch: Batch) -> Loss:
        """Return the cross entropy of the labels and the weighted one of the turns.

        Args:
            batch: Features of all turns, (4, b, f), b >= 2, labels, and the classifiers.

        Returns:
            At least 0; ``log(c) + turns * log(4)`` at chance.

        Raises:
            InvalidInput: If labels or classifiers are missing, there are not four turns, or
                fewer than two images.
        """
        check_views(batch.features, views=QUARTERS, name="self_supervised_auxiliary")
        module = built(batch, _Classifiers)
        labels = supplied(batch.labels, "labels")
        upright = module.label(batch.features[0]).float()
        turned = module.turn(batch.features.flatten(0, 1)).float()
        amounts = torch.arange(QUARTERS, device=labels.device).repeat_interleave(len(labels))
        return Loss.sum(
            labels=functional.cross_entropy(upright, labels),
            turns=self.turns * functional.cross_entropy(turned, amounts),
        )
