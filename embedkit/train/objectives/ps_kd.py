"""PS-KD: Kim et al., Self-Knowledge Distillation with Progressive Refinement, ICCV 2021."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from embedkit.train.objective import Batch, Loss, Sizes, objectives, supplied
from embedkit.train.terms import built, check_views, require, soft_cross_entropy

__all__ = ["PSKD"]


class _Memory(nn.Module):
    """The classifier and what it last said of every image."""

    past: torch.Tensor
    seen: torch.Tensor

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.linear = nn.Linear(sizes.feature_dim, sizes.classes)
        self.register_buffer("past", torch.zeros(sizes.images, sizes.classes))
        self.register_buffer("seen", torch.zeros(sizes.images, dtype=torch.bool))


@objectives.register("ps_kd")
@dataclass(frozen=True)
class PSKD:
    """Soften each label by what the network itself said of the image an epoch ago (eq. 2 to 4).

    The share of the past prediction grows linearly over the run. Predictions are kept for every
    image, as the authors' code does. The classifier is exported.

    Attributes:
        share: Share of the past prediction in the target at the end, in [0, 1] (alpha_T).
    """

    share: float = 0.8

    needs = frozenset({"labels", "indices"})
    views = 1

    def __post_init__(self) -> None:
        """Check the share."""
        require(0 <= self.share <= 1, "a share in [0, 1]", self.share)

    def build(self, sizes: Sizes) -> nn.Module | None:
        """The classifier and the memory."""
        return _Memory(sizes)

    def classifier(self, module: nn.Module) -> nn.Linear:
        """The linear layer."""
        linear = module.get_submodule("linear")
        assert isinstance(linear, nn.Linear)
        return linear

    def __call__(self, batch: Batch) -> Loss:
        """Return the mean cross entropy with the softened labels.

        Args:
            batch: One view's features, (1, b, f), b >= 2, labels, indices, and the module.

        Returns:
            At least 0.

        Raises:
            InvalidInput: If labels or indices are missing, there is not one view, or fewer than
                two images.
        """
        check_views(batch.features, views=1, name="ps_kd")
        module = built(batch, _Memory)
        labels = supplied(batch.labels, "labels")
        indices = supplied(batch.indices, "indices")
        logits = module.linear(batch.features[0]).float()
        hard = functional.one_hot(labels, logits.shape[1]).float()
        # Nothing is known of an image before it was seen: its label stays hard.
        share = self.share * batch.progress * module.seen[indices].float().unsqueeze(1)
        targets = (1 - share) * hard + share * module.past[indices].float()
        module.past[indices] = torch.softmax(logits.detach(), dim=1).to(module.past.dtype)
        module.seen[indices] = True
        return Loss.sum(entropy=soft_cross_entropy(logits, targets).mean())
