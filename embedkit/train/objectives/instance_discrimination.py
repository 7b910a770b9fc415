"""Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, 2018."""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch, Loss, Sizes, objectives, supplied
from embedkit.train.terms import built, check_views, exact_product, require, unit

__all__ = ["Bank", "InstanceDiscrimination"]


class Bank(nn.Module):
    """One remembered direction of each training image, and the constant of equation 8.

    The constant's logarithm is infinite until the first batch.

    Args:
        images: Number of training images.
        dim: Dimensions of a projection.
    """

    vectors: torch.Tensor
    log_constant: torch.Tensor

    def __init__(self, images: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("vectors", functional.normalize(torch.randn(images, dim), dim=1))
        self.register_buffer("log_constant", torch.tensor(math.inf))


@objectives.register("instance_discrimination")
@dataclass(frozen=True)
class InstanceDiscrimination:
    """Classify each image as itself, with a memory of all images as the classifier (CVPR 2018).

    The softmax over all images (eq. 2) is learned by noise-contrastive estimation against
    images drawn at random (eq. 5 to 8); the draw is shared by the batch. It meets an image once
    an epoch and learns slowly: docs/leaderboard.md has what 8 and 32 epochs give.

    Attributes:
        temperature: Divides the cosines; above 0.
        negatives: Images drawn as noise (m), at least 1; 0 takes the exact softmax.
        keep: Share of the old direction that an update of the memory keeps, in [0, 1).
        proximal: Weight of the squared distance from the remembered direction (lambda, eq. 10;
            the paper takes 30), at least 0. The memory starts at random, so over few epochs
            this holds images where they cannot stay.
    """

    temperature: float = 0.07
    negatives: int = 4096
    keep: float = 0.5
    proximal: float = 0.0

    needs = frozenset({"projections", "indices"})
    views = 1

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(self.temperature > 0, "a temperature above 0", self.temperature)
        require(self.negatives >= 0, "negatives of at least 0", self.negatives)
        require(0 <= self.keep < 1, "keep in [0, 1)", self.keep)
        require(self.proximal >= 0, "a proximal weight of at least 0", self.proximal)

    def build(self, sizes: Sizes) -> nn.Module | None:
        """The memory of all images."""
        return Bank(sizes.images, sizes.dim)

    def __call__(self, batch: Batch) -> Loss:
        """Return the mean loss of the images, and remember their directions.

        Args:
            batch: One view, (1, b, d), b >= 2, with indices and the memory.

        Returns:
            At least 0, in a part ``contrast`` and, if it has a weight, ``proximal``.

        Raises:
            InvalidInput: If indices or memory are missing, there is not one view, or fewer than
                two images.
        """
        check_views(batch.projections, views=1, name="instance_discrimination")
        bank, indices = built(batch, Bank), supplied(batch.indices, "indices")
        if int(indices.max()) >= len(bank.vectors):
            raise InvalidInput(
                f"expected indices below the {len(bank.vectors)} images of the memory, "
                f"got {int(indices.max())}"
            )
        z = unit(batch.projections[0])
        remembered = bank.vectors[indices].float()
        if self.negatives:
            contrast = self._estimate(z, remembered, bank, batch.generator)
        else:
            logits = exact_product(z, bank.vectors.clone()) / self.temperature
            contrast = functional.cross_entropy(logits, indices)
        parts = {"contrast": contrast}
        if self.proximal:
            parts["proximal"] = self.proximal * (z - remembered).square().sum(dim=1).mean()
        with torch.no_grad():
            moved = unit(torch.lerp(z.detach(), remembered, self.keep))
            bank.vectors[indices] = moved.to(bank.vectors.dtype)
        return Loss.sum(**parts)

    def _estimate(
        self,
        z: torch.Tensor,
        remembered: torch.Tensor,
        bank: Bank,
        generator: torch.Generator | None,
    ) -> torch.Tensor:
        """Equation 7: minus the log-probability of telling data from noise."""
        images = len(bank.vectors)
        drawn = torch.randint(images, (self.negatives,), generator=generator, device=z.device)
        noise = exact_product(z, bank.vectors[drawn]) / self.temperature
        itself = (z * remembered).sum(dim=1) / self.temperature
        if torch.isinf(bank.log_constant):
            # Equation 8: estimated from the first batch, and constant from then on.
            mean = torch.logsumexp(noise.detach().flatten(), dim=0) - math.log(noise.numel())
            bank.log_constant.copy_(mean + math.log(images))
        # log(P / (m * P_n)) with P_n = 1 / n; its sigmoid is h of equations 5 and 6.
        offset = bank.log_constant.float() + math.log(self.negatives / images)
        right = functional.softplus(offset - itself)
        wrong = functional.softplus(noise - offset).sum(dim=1)
        return (right + wrong).mean()
