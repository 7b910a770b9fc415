"""RoCL: Kim et al., Adversarial Self-Supervised Contrastive Learning, NeurIPS 2020."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from embedkit.perturb.adversary import Adversary
from embedkit.train.batch import ImageIndices, Projections
from embedkit.train.objective import Batch, Loss, Sizes, objectives, supplied
from embedkit.train.terms import check_views, exact_product, require, unit

__all__ = ["AdversarialContrastive"]


@objectives.register("adversarial_contrastive")
@dataclass(frozen=True)
class AdversarialContrastive:
    """Find an image again even when it was changed so as to look like another (eq. 4 to 6).

    The adversary changes the first view, within a radius, so that it is confused with other
    images of the batch; no labels are needed. The changed view is one more positive of the
    first view, and an anchor of its own. (ACL, Jiang et al., 2020, contrasts changed views as
    well, with batch norms of their own for them, which a served encoder would not have.)

    Attributes:
        temperature: Divides the cosines. Above 0.
        weight: Of the changed view as an anchor, at least 0 (lambda; the paper's 1/256 with its
            sums over the batch is nearly nothing in a mean).
        radius_255: How far the adversary may change a view, in steps of 1/255. Above 0.
        steps: Gradients that it takes, at least 1; 1 is FGSM.
        norm: In which the change is measured.
    """

    temperature: float = 0.5
    weight: float = 1.0
    radius_255: float = 8.0
    steps: int = 3
    norm: Literal["linf", "l2"] = "linf"

    needs = frozenset({"projections", "adversarial"})
    views = 2

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(self.temperature > 0, "a temperature above 0", self.temperature)
        require(self.weight >= 0, "a weight of at least 0", self.weight)
        Adversary(self.radius_255, self.steps, self.norm)

    @property
    def adversary(self) -> Adversary:
        """Gradient ascent from a random place."""
        return Adversary(self.radius_255, self.steps, self.norm)

    def build(self, sizes: Sizes) -> nn.Module | None:
        """Nothing is trained beside encoder and projection head."""
        return None

    def harm(
        self,
        changed: torch.Tensor,
        clean: Projections,
        rows: ImageIndices,
        module: nn.Module | None,
    ) -> torch.Tensor:
        """Equation 4: the contrastive loss of the changed view with the second one."""
        return self._contrast(unit(changed), [unit(clean[1])[rows]], unit(clean), rows)

    def __call__(self, batch: Batch) -> Loss:
        """Return the loss of the first view and the weighted one of the changed view.

        Args:
            batch: Two views, (2, b, d), b >= 2, and the first one changed, (1, b, d).

        Returns:
            At least 0.

        Raises:
            InvalidInput: If the changed view is missing, there are not two views, or fewer than
                two images.
        """
        check_views(batch.projections, views=2, name="adversarial_contrastive")
        views = unit(batch.projections)
        changed = unit(supplied(batch.adversarial, "adversarial")[0])
        rows = torch.arange(len(changed), device=changed.device)
        natural = self._contrast(views[0], [views[1], changed], views, rows)
        robust = self._contrast(changed, [views[1]], views, rows)
        return Loss.sum(natural=natural.mean(), robust=self.weight * robust.mean())

    def _contrast(
        self,
        anchors: torch.Tensor,
        positives: list[torch.Tensor],
        views: Projections,
        rows: ImageIndices,
    ) -> torch.Tensor:
        """Equation 2 for each of m anchors of length 1, (m,), at least 0.

        Args:
            anchors: (m, d).
            positives: Of each anchor, (m, d) each.
            views: Both views of all b images, (2, b, d); those of other images are negatives.
            rows: Which images the anchors are of, (m,).
        """
        kin = [(anchors * positive).sum(dim=1, keepdim=True) for positive in positives]
        others = exact_product(anchors, views.flatten(0, 1)) / self.temperature
        image = torch.arange(views.shape[1], device=rows.device).repeat(2)
        others = others.masked_fill(rows.unsqueeze(1) == image, float("-inf"))
        near = torch.cat(kin, dim=1) / self.temperature
        everyone = torch.cat([near, others], dim=1).logsumexp(dim=1)
        return everyone - near.logsumexp(dim=1)
