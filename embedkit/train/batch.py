"""Batch: what an objective sees of one step, and the Loss it gives back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import torch
from torch import nn

__all__ = [
    "Batch",
    "ImageIndices",
    "Loss",
    "Mask",
    "Projections",
    "Shares",
    "Sizes",
    "Targets",
    "Tokens",
    "Transformed",
]

Projections = Annotated[torch.Tensor, "v b d"]
"""One vector per view and image of a training batch, float, not normalised."""

Targets = Annotated[torch.Tensor, "b"]
"""Class index of each image of the batch, int64, 0-based."""

Shares = Annotated[torch.Tensor, "v b c"]
"""How much of each view of an image is of each class, float, at least 0, with sum 1."""

ImageIndices = Annotated[torch.Tensor, "b"]
"""Position of each image of the batch in the data set, int64."""

Tokens = Annotated[torch.Tensor, "v b t d"]
"""Patch tokens of each view and image."""

Mask = Annotated[torch.Tensor, "v b t"]
"""Bool, True where a patch is hidden."""


@dataclass(frozen=True)
class Sizes:
    """What ``build`` may depend on.

    Attributes:
        dim: Dimensions of a projection; of a feature where there is no projection head.
        feature_dim: Dimensions of the encoder's features and tokens.
        classes: Number of classes; 0 without labels.
        images: Number of training images.
        image_shape: Height, width and channels of an image.
        grid: Rows and columns of patches; (0, 0) where the encoder has none.
        patch: Side of a patch in pixels; 0 where the encoder has none.
        embedding_dims: Dimensions of the embeddings of each of ``Distilling.bundles``.
    """

    dim: int
    feature_dim: int
    classes: int = 0
    images: int = 0
    image_shape: tuple[int, int, int] = (0, 0, 0)
    grid: tuple[int, int] = (0, 0)
    patch: int = 0
    embedding_dims: tuple[int, ...] = ()


@dataclass(frozen=True)
class Batch:
    """One training batch as an objective sees it; what it does not need may be None.

    Attributes:
        projections: All views, (v, b, d), with gradient.
        features: The encoder's features of the same views, (v, b, f), with gradient.
        module: What the objective's ``build`` returned.
        labels: (b,).
        targets: Shares of the classes in each view and image, (v, b, c) with sum 1; mixing
            augmentations make them other than 0 and 1.
        indices: (b,).
        teacher: The teacher's projections of the whole views, (v, b, d), without gradient.
        teacher_module: Averaged copy of ``module``.
        teacher_blocks: The teacher's tokens after every block, nothing hidden,
            (v, b, blocks, t, f), without gradient.
        tokens: (v, b, t, f); the visible ones alone where hidden patches are dropped.
        mask: Which patches were hidden from the student, (v, b, t) bool.
        local: Projections of the small crops, (l, b, d), with gradient; the recipe's
            ``views.local`` is l, 0 or more.
        adversarial: Projections of the first view as the adversary changed it, (1, b, d), with
            gradient.
        images: The images as they are, (b, c, h, w) in [0, 1].
        pixels: The views that were encoded, (v, b, c, h, w) in [0, 1].
        notes: What ``Transforming.transform`` has to say of the views.
        embeddings: What each of the bundles says of the images as they are: (b, d) each.
        generator: Source of any randomness the objective draws; seeded by run and step.
        progress: Share of the run that is done, in [0, 1].
    """

    projections: Projections
    features: Projections
    module: nn.Module | None = None
    labels: Targets | None = None
    targets: Shares | None = None
    indices: ImageIndices | None = None
    teacher: Projections | None = None
    teacher_module: nn.Module | None = None
    teacher_blocks: torch.Tensor | None = None
    tokens: Tokens | None = None
    mask: Mask | None = None
    local: Projections | None = None
    adversarial: Projections | None = None
    images: torch.Tensor | None = None
    pixels: torch.Tensor | None = None
    notes: Mapping[str, torch.Tensor] = field(default_factory=dict)
    embeddings: tuple[torch.Tensor, ...] | None = None
    generator: torch.Generator | None = None
    progress: float = 0.0


@dataclass(frozen=True)
class Loss:
    """A value to minimise and what it consists of.

    Attributes:
        total: Scalar, float32, with gradient.
        parts: Named summands, detached scalars; they add up to ``total``.
    """

    total: torch.Tensor
    parts: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def sum(cls, **parts: torch.Tensor) -> "Loss":
        """The loss whose parts are these scalars."""
        total = torch.stack(list(parts.values())).sum()
        return cls(total, {name: value.detach() for name, value in parts.items()})


@dataclass(frozen=True)
class Transformed:
    """Views as an objective changed them.

    Attributes:
        views: (v, b, c, h, w) in [0, 1].
        notes: Whatever the objective has to remember of the change; first axis b each.
    """

    views: torch.Tensor
    notes: Mapping[str, torch.Tensor] = field(default_factory=dict)
