"""SLA: Lee et al., Self-supervised Label Augmentation via Input Transformations, ICML 2020."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from embedkit.train.batch import Transformed
from embedkit.train.objective import Batch, Loss, Sizes, objectives, supplied
from embedkit.train.terms import (
    QUARTERS,
    built,
    check_views,
    quarter_turns,
    require,
    soft_cross_entropy,
)

__all__ = ["LabelAugmentation"]


class _Classifiers(nn.Module):
    """One of class and turn together, and one of the class alone."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.joint = nn.Linear(dim, classes * QUARTERS)
        self.single = nn.Linear(dim, classes)


@objectives.register("label_augmentation")
@dataclass(frozen=True)
class LabelAugmentation:
    """Tell class and quarter turn as one label, and learn the class from all turns together.

    The joint classifier (eq. 2) sees each image in four turns. Its mean over them (eq. 3) is
    what a second classifier learns from the upright image alone (eq. 4): one pass then does
    for four. That one is exported.

    Attributes:
        distillation: Weight of the divergence from the mean over turns, at least 0.
        labels: Weight of the second classifier's cross entropy with the labels, at least 0
            (beta).
    """

    distillation: float = 1.0
    labels: float = 1.0

    needs = frozenset({"labels"})
    views = QUARTERS
    drawn = 1

    def __post_init__(self) -> None:
        """Check the weights."""
        weights = (self.distillation, self.labels)
        require(min(weights) >= 0, "weights of at least 0", weights)
        require(max(weights) > 0, "one weight above 0", weights)

    def build(self, sizes: Sizes) -> nn.Module | None:
        """Both classifiers."""
        return _Classifiers(sizes.feature_dim, sizes.classes)

    def classifier(self, module: nn.Module) -> nn.Linear:
        """The classifier of the upright image."""
        linear = module.get_submodule("single")
        assert isinstance(linear, nn.Linear)
        return linear

    def transform(self, views: torch.Tensor, generator: torch.Generator) -> Transformed:
        """The augmented view in its four turns."""
        return Transformed(quarter_turns(views[0]))

    def __call__(self, batch: Batch) -> Loss:
        """Return the three terms of equation 4.

        Args:
            batch: Features of all turns, (4, b, f), b >= 2, labels, and the classifiers.

        Returns:
            At least 0.

        Raises:
            InvalidInput: If labels or classifiers are missing, there are not four turns, or
                fewer than two images.
        """
        check_views(batch.features, views=QUARTERS, name="label_augmentation")
        module = built(batch, _Classifiers)
        labels = supplied(batch.labels, "labels")
        logits = torch.stack([module.joint(turned) for turned in batch.features]).float()
        # Label c turned by r is joint class c * 4 + r.
        turns = torch.arange(QUARTERS, device=labels.device).unsqueeze(1)
        joint = labels * QUARTERS + turns
        rows = logits.reshape(len(turns) * len(labels), -1)
        # What class c scores in turn r, given that the image was turned by r: (4, b, c).
        own = torch.stack([turned[:, r::QUARTERS] for r, turned in enumerate(logits)])
        together = torch.softmax(own.mean(dim=0), dim=1).detach()
        single = module.single(batch.features[0]).float()
        divergence = soft_cross_entropy(single, together) + torch.xlogy(together, together).sum(
            dim=1
        )
        return Loss.sum(
            joint=functional.cross_entropy(rows, joint.flatten()),
            distillation=self.distillation * divergence.mean(),
            labels=self.labels * functional.cross_entropy(single, labels),
        )
