"""Objective: what is minimised. The contract, and what the loop hands to it.

An objective is a frozen dataclass registered under its file's name. It declares what it needs,
the loop supplies it, and no objective edits the loop:

========== =======================================================================
projections a head between features and objective is built and trained; without this
            need ``Batch.projections`` are the encoder's features themselves
labels      ``Batch.labels``; the data must have at least two classes
indices     ``Batch.indices``: which image of the data set each one is
teacher     ``Batch.teacher``: projections by the averaged weights, without gradient
tokens      ``Batch.tokens``; the encoder must have patches
========== =======================================================================

Whatever an objective trains or remembers (predictor, queue, prototypes, classifier) is one
module that ``build`` returns. It comes back in ``Batch.module``, its parameters are optimised
with the encoder's, and its parameters and buffers are in every checkpoint.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Protocol, TypeVar, runtime_checkable

import torch
from torch import nn

from embedkit.errors import InvalidInput
from embedkit.registry import Registry, configure

__all__ = [
    "NEEDS",
    "Batch",
    "Classifying",
    "ImageIndices",
    "Loss",
    "Objective",
    "Projections",
    "Sizes",
    "Targets",
    "Taught",
    "Tokens",
    "build_objective",
    "objectives",
    "supplied",
]

T = TypeVar("T")

Projections = Annotated[torch.Tensor, "v b d"]
"""One vector per view and image of a training batch, float, not normalised."""

Targets = Annotated[torch.Tensor, "b"]
"""Class index of each image of the batch, int64, 0-based."""

ImageIndices = Annotated[torch.Tensor, "b"]
"""Position of each image of the batch in the data set, int64."""

Tokens = Annotated[torch.Tensor, "v b t d"]
"""Patch tokens of each view and image."""

NEEDS = frozenset({"projections", "labels", "indices", "teacher", "tokens"})
"""Everything that an objective may ask the loop for."""


@dataclass(frozen=True)
class Sizes:
    """What ``build`` may depend on.

    Attributes:
        dim: Dimensions of a projection; of a feature where there is no projection head.
        feature_dim: Dimensions of the encoder's features.
        classes: Number of classes; 0 without labels.
        images: Number of training images.
    """

    dim: int
    feature_dim: int
    classes: int = 0
    images: int = 0


@dataclass(frozen=True)
class Batch:
    """One training batch as an objective sees it.

    Attributes:
        projections: All views, (v, b, d), with gradient.
        features: The encoder's features of the same views, (v, b, f), with gradient.
        module: What the objective's ``build`` returned.
        labels: (b,), where needed.
        indices: (b,), where needed.
        teacher: The teacher's projections, (v, b, d), without gradient, where needed.
        tokens: (v, b, t, f), where needed.
        generator: Source of any randomness the objective draws; seeded by run and step.
        progress: Share of the run that is done, in [0, 1].
    """

    projections: Projections
    features: Projections
    module: nn.Module | None = None
    labels: Targets | None = None
    indices: ImageIndices | None = None
    teacher: Projections | None = None
    tokens: Tokens | None = None
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


@runtime_checkable
class Objective(Protocol):
    """What every objective is: a frozen value that turns a batch into a loss."""

    @property
    def needs(self) -> frozenset[str]:
        """Which of ``NEEDS`` the loop must supply."""
        ...

    @property
    def views(self) -> int:
        """Augmented views of each image, at least 1."""
        ...

    def build(self, sizes: Sizes) -> nn.Module | None:
        """Return a new module of everything it trains or remembers, or None."""
        ...

    def __call__(self, batch: Batch) -> Loss:
        """Return the loss of one batch.

        Raises:
            InvalidInput: If the batch has fewer than two images, another number of views, or
                lacks something that the objective needs.
        """
        ...


@runtime_checkable
class Taught(Protocol):
    """An objective that needs ``teacher`` and says how fast the teacher follows."""

    def teacher_momentum(self, progress: float) -> float:
        """Share of the teacher's old weights kept at a step, in [0, 1].

        Args:
            progress: Share of the run that is done, in [0, 1].
        """
        ...


@runtime_checkable
class Classifying(Protocol):
    """An objective that trains a linear classifier on the encoder's features."""

    def classifier(self, module: nn.Module) -> nn.Linear:
        """The classifier inside the module that ``build`` returned; exported as a head."""
        ...


objectives: Registry[type[Objective]] = Registry("embedkit.train.objectives", "objective")
"""Every objective by name; each entry is a frozen dataclass that is an ``Objective``."""


def build_objective(name: str, arguments: Mapping[str, object]) -> Objective:
    """Return the objective called ``name`` with these arguments.

    Raises:
        InvalidInput: If the name or an argument is unknown, or a value is out of range.
    """
    objective = configure(objectives.get(name), arguments, noun=f"objective {name!r}")
    unknown = objective.needs - NEEDS
    if unknown:
        raise InvalidInput(f"expected needs among {sorted(NEEDS)}, got {sorted(unknown)}")
    return objective


def supplied(value: T | None, need: str) -> T:
    """The value that the loop supplies for a need.

    Raises:
        InvalidInput: If it is absent.
    """
    if value is None:
        raise InvalidInput(f"expected a batch with {need}, got none; declare {need!r} in needs")
    return value
