"""TRADES: Zhang et al., Theoretically Principled Trade-off between Robustness and Accuracy."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from embedkit.perturb.adversary import Adversary
from embedkit.train.batch import ImageIndices, Projections
from embedkit.train.objective import Batch, Loss, objectives, supplied
from embedkit.train.terms import (
    Classifying,
    built,
    check_views,
    divergence,
    require,
    soft_cross_entropy,
)

__all__ = ["TRADES"]


@objectives.register("trades")
@dataclass(frozen=True)
class TRADES(Classifying):
    """Classify images, and keep their features where they are under attack (ICML 2019, eq. 5).

    The loss is the cross entropy of the images as they are, plus ``beta`` times the largest
    divergence that the adversary finds between an image and its change. The paper's divergence
    is of the predicted classes; the default is of the features, because they are what is
    served.

    Attributes:
        beta: Weight of the divergence, at least 0 (1 / lambda).
        between: ``features``: one minus their cosine; ``predictions``: Kullback-Leibler
            divergence of the classes, as in the paper.
        radius_255: How far the adversary may change an image, in steps of 1/255. Above 0.
        steps: Gradients that it takes, at least 1; 1 is FGSM.
        norm: In which the change is measured.
    """

    beta: float = 6.0
    between: Literal["features", "predictions"] = "features"
    radius_255: float = 8.0
    steps: int = 3
    norm: Literal["linf", "l2"] = "linf"

    needs = frozenset({"targets", "adversarial"})
    views = 1

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(self.beta >= 0, "a beta of at least 0", self.beta)
        Adversary(self.radius_255, self.steps, self.norm)

    @property
    def adversary(self) -> Adversary:
        """Gradient ascent from a random place: the divergence is flat at the image itself."""
        return Adversary(self.radius_255, self.steps, self.norm)

    def harm(
        self,
        changed: torch.Tensor,
        clean: Projections,
        rows: ImageIndices,
        module: nn.Module | None,
    ) -> torch.Tensor:
        """The divergence."""
        return self._between(clean[0, rows], changed, supplied(module, "module"))

    def __call__(self, batch: Batch) -> Loss:
        """Return cross entropy and weighted divergence.

        Args:
            batch: One view's features, (1, b, f), b >= 2, and those of its change; targets and
                the classifier.

        Returns:
            At least 0.

        Raises:
            InvalidInput: If something that it needs is missing, there is not one view, or fewer
                than two images.
        """
        check_views(batch.features, views=1, name="trades")
        classifier = built(batch, nn.Linear)
        targets = supplied(batch.targets, "targets")[0]
        changed = supplied(batch.adversarial, "adversarial")[0]
        natural = soft_cross_entropy(classifier(batch.features[0]), targets)
        robust = self._between(batch.features[0], changed, classifier)
        return Loss.sum(natural=natural.mean(), robust=self.beta * robust.mean())

    def _between(
        self, clean: torch.Tensor, changed: torch.Tensor, classifier: nn.Module
    ) -> torch.Tensor:
        if self.between == "features":
            return 1 - functional.cosine_similarity(clean.float(), changed.float(), dim=1)
        return divergence(classifier(clean), classifier(changed))
