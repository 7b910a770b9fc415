"""LFR: Sui et al., Self-supervised Learning from Random Data Projectors, ICLR 2024."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from embedkit.train.objective import Batch, Loss, Sizes, objectives, supplied
from embedkit.train.terms import built, check_views, exact_product, require, unit

__all__ = ["RandomProjectors"]


class _Projectors(nn.Module):
    """Random networks from images to targets, and what predicts each from the features."""

    def __init__(self, sizes: Sizes, projectors: int, dim: int) -> None:
        super().__init__()
        channels = sizes.image_shape[2]
        self.random = nn.ModuleList(
            [
                nn.Sequential(
                    nn.Conv2d(channels, 16, 3, stride=2, padding=1),
                    nn.ReLU(),
                    nn.Conv2d(16, 32, 3, stride=2, padding=1),
                    nn.ReLU(),
                    nn.AdaptiveAvgPool2d(4),
                    nn.Flatten(),
                    nn.Linear(32 * 16, dim),
                )
                for _ in range(projectors)
            ]
        ).requires_grad_(False)
        self.predictors = nn.ModuleList(
            [nn.Linear(sizes.feature_dim, dim) for _ in range(projectors)]
        )


@objectives.register("random_projectors")
@dataclass(frozen=True)
class RandomProjectors:
    """Tell images apart as random networks do, each through a linear layer of its own.

    Every random network, which is never trained, gives each image as it is a target. The
    features' prediction must be near the image's own target and unrelated to the others':
    Barlow Twins' loss over images in the place of dimensions: with c the cosines of
    predictions i and targets j, the mean over K networks and images of
    ``(1 - c_ii)^2 + lambda sum_j!=i c_ij^2``. The paper needs no augmentation;
    set augmentation = 'none' to follow it. It also picks the most diverse of many networks by a
    determinantal point process, which is left out here.

    Attributes:
        projectors: Random networks (K).
        dim: Dimensions of a target.
        others: Weight of the squared cosines with other images' targets, at least 0 (lambda).
    """

    projectors: int = 6
    dim: int = 64
    others: float = 0.01

    needs = frozenset({"images"})
    views = 1

    def __post_init__(self) -> None:
        """Check the ranges."""
        counts = (self.projectors, self.dim)
        require(min(counts) >= 1, "at least 1 projector and dimension", counts)
        require(self.others >= 0, "a weight of at least 0", self.others)

    def build(self, sizes: Sizes) -> nn.Module | None:
        """The random networks and the predictors."""
        return _Projectors(sizes, self.projectors, self.dim)

    def __call__(self, batch: Batch) -> Loss:
        """Return the batch-wise loss, averaged over random networks and images.

        Args:
            batch: One view's features, (1, b, f), b >= 2, the images as they are, and the
                module.

        Returns:
            At least 0.

        Raises:
            InvalidInput: If the images are missing, there is not one view, or fewer than two
                images.
        """
        check_views(batch.features, views=1, name="random_projectors")
        module = built(batch, _Projectors)
        images = supplied(batch.images, "images")
        own, others = [], []
        for network, predictor in zip(module.random, module.predictors, strict=True):
            with torch.no_grad():
                target = self._target(network, images)
            cosines = exact_product(unit(predictor(batch.features[0])), unit(target))
            itself = torch.diagonal(cosines)
            own.append((1 - itself).square().mean())
            others.append((cosines.square().sum() - itself.square().sum()) / len(itself))
        return Loss.sum(
            own=torch.stack(own).mean(), others=self.others * torch.stack(others).mean()
        )

    @staticmethod
    def _target(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
        """Standardised over the batch: what all images share says nothing of one of them."""
        weight = next(network.parameters())
        target: torch.Tensor = network(images.to(weight.dtype)).float()
        return functional.batch_norm(target, None, None, training=True)
