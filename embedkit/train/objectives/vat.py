"""VAT: Miyato et al., Virtual Adversarial Training, TPAMI 2018."""

from dataclasses import dataclass

import torch
from torch import nn

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

__all__ = ["VAT"]


@objectives.register("vat")
@dataclass(frozen=True)
class VAT(Classifying):
    """Classify images, and predict the same classes all around them (eq. 5 to 8).

    Around an image the prediction changes fastest in one direction, which power iteration finds
    in a gradient or two (eq. 9 to 12); the prediction at the radius in that direction is drawn
    to the one at the image, whatever the label is.

    Attributes:
        weight: Of the local smoothness, at least 0 (alpha).
        radius_255: Euclidean length of the change in steps of 1/255, above 0 (epsilon). 255 is
            one value of an image from black to white.
        steps: Of the power iteration, at least 1 (K).
    """

    weight: float = 1.0
    radius_255: float = 255.0
    steps: int = 1

    needs = frozenset({"targets", "adversarial"})
    views = 1

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(self.weight >= 0, "a weight of at least 0", self.weight)
        Adversary(self.radius_255, self.steps, "l2", "power")

    @property
    def adversary(self) -> Adversary:
        """Power iteration."""
        return Adversary(self.radius_255, self.steps, "l2", "power")

    def harm(
        self,
        changed: torch.Tensor,
        clean: Projections,
        rows: ImageIndices,
        module: nn.Module | None,
    ) -> torch.Tensor:
        """Equation 5: divergence of the classes predicted at the change from those before."""
        classifier = supplied(module, "module")
        return divergence(classifier(clean[0, rows]), classifier(changed))

    def __call__(self, batch: Batch) -> Loss:
        """Return cross entropy and weighted local smoothness (eq. 8).

        Args:
            batch: One view's features, (1, b, f), b >= 2, and those of its change; targets and
                the classifier.

        Returns:
            At least 0.

        Raises:
            InvalidInput: If something that it needs is missing, there is not one view, or fewer
                than two images.
        """
        check_views(batch.features, views=1, name="vat")
        classifier = built(batch, nn.Linear)
        targets = supplied(batch.targets, "targets")[0]
        changed = supplied(batch.adversarial, "adversarial")[0]
        logits = classifier(batch.features[0])
        # The prediction at the image is a target: theta hat in equation 5.
        smoothness = divergence(logits.detach(), classifier(changed))
        return Loss.sum(
            entropy=soft_cross_entropy(logits, targets).mean(),
            smoothness=self.weight * smoothness.mean(),
        )
