"""Objective: what is minimised. The contract, and what the loop supplies for it.

An objective is a frozen dataclass registered under its file's name. It declares what it needs,
the loop supplies it, and no objective edits the loop:

============== ==========================================================================
projections    a head between features and objective is built and trained; without this
               need ``Batch.projections`` are the encoder's features themselves
labels         ``Batch.labels``; the data must have at least two classes
targets        the labels as ``Batch.targets``, so that augmentations may mix images
indices        ``Batch.indices``: which image of the data set each one is
teacher        ``Batch.teacher``: projections by the averaged weights, without gradient;
               the objective is ``Taught``
teacher_module ``Batch.teacher_module``: the averaged copy of what ``build`` returned
teacher_blocks ``Batch.teacher_blocks``: the averaged encoder's tokens after every block
tokens         ``Batch.tokens``; the encoder must have patches
mask           the student is not shown all patches, ``Batch.mask``; ``Masking`` says which
local          ``Batch.local``: projections of small crops, as many as ``views.local`` says
adversarial    ``Batch.adversarial``: the first view, changed by the adversary of an ``Opposed``
images         ``Batch.images``: pixels as they are
pixels         ``Batch.pixels``: pixels of the views
embeddings     ``Batch.embeddings``: by finished bundles, which ``Distilling`` names
============== ==========================================================================

Whatever an objective trains or remembers (predictor, queue, prototypes, classifier) is one
module that ``build`` returns. It comes back in ``Batch.module``, its parameters are optimised
with the encoder's, and its parameters and buffers are in every checkpoint: a memory is a buffer
of it that the call updates in place, after its old value was used (as a copy, if the gradient
passes through it). An objective that is ``Transforming`` changes the views before they are
encoded; one that is ``Prepared`` fills its module once before the first step.
"""

from collections.abc import Mapping
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import nn

from embedkit.errors import InvalidInput
from embedkit.perturb.adversary import Adversary
from embedkit.registry import Registry, configure
from embedkit.train.batch import (
    Batch,
    ImageIndices,
    Loss,
    Projections,
    Sizes,
    Targets,
    Tokens,
    Transformed,
)

__all__ = [
    "NEEDS",
    "Batch",
    "Classifying",
    "Distilling",
    "ImageIndices",
    "Loss",
    "Masking",
    "Objective",
    "Opposed",
    "Prepared",
    "Projections",
    "Sizes",
    "Targets",
    "Taught",
    "Tokens",
    "Transforming",
    "build_objective",
    "objectives",
    "supplied",
]

T = TypeVar("T")

NEEDS = frozenset(
    {
        *("projections", "labels", "targets", "indices", "tokens", "images", "pixels"),
        *("teacher", "teacher_module", "teacher_blocks", "mask", "local", "embeddings"),
        "adversarial",
    }
)
"""Everything that an objective may ask the loop for."""


@runtime_checkable
class Objective(Protocol):
    """What every objective is: a frozen value that turns a batch into a loss."""

    @property
    def needs(self) -> frozenset[str]:
        """Which of ``NEEDS`` the loop must supply."""
        ...

    @property
    def views(self) -> int:
        """Views of each image that are encoded whole, at least 1."""
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


@runtime_checkable
class Transforming(Protocol):
    """An objective that changes the augmented views before they are encoded."""

    @property
    def drawn(self) -> int:
        """Augmented views of each image that ``transform`` takes, at least 1."""
        ...

    def transform(self, views: torch.Tensor, generator: torch.Generator) -> Transformed:
        """Return as many views as the objective's ``views`` says, and notes for its call.

        Args:
            views: (drawn, b, c, h, w) in [0, 1].
            generator: On the same device.
        """
        ...


@runtime_checkable
class Masking(Protocol):
    """An objective that needs ``mask`` and says what the student is not shown."""

    def hide(
        self, grid: tuple[int, int], count: int, generator: torch.Generator
    ) -> torch.Tensor:
        """Return (count, rows * columns) bool, True where hidden; as many in every row.

        Args:
            grid: Rows and columns of patches.
            count: Images of all views.
            generator: Source of every random number; the result is on its device.
        """
        ...

    def mask_token(self, module: nn.Module) -> torch.Tensor | None:
        """The (d,) part of ``module`` put in the place of hidden patches; None drops them."""
        ...


@runtime_checkable
class Opposed(Protocol):
    """An objective that needs ``adversarial`` and says what its adversary is after."""

    @property
    def adversary(self) -> Adversary:
        """How far the first view of an image may be changed, and how the search goes."""
        ...

    def harm(
        self,
        changed: torch.Tensor,
        clean: Projections,
        rows: ImageIndices,
        module: nn.Module | None,
    ) -> torch.Tensor:
        """Return what the adversary raises, (m,); image by image.

        Args:
            changed: Projections of m changed first views, (m, d), with gradient.
            clean: Projections of all images' whole views as they are, (v, b, d).
            rows: Which of the b images the m are, (m,).
            module: What ``build`` returned.
        """
        ...


@runtime_checkable
class Distilling(Protocol):
    """An objective that needs ``embeddings`` and names the bundles that give them."""

    @property
    def bundles(self) -> tuple[str, ...]:
        """Folders of finished models."""
        ...


@runtime_checkable
class Prepared(Protocol):
    """A ``Distilling`` objective that fills its module before the first step."""

    def prepare(self, module: nn.Module, embeddings: tuple[torch.Tensor, ...]) -> None:
        """Set buffers of ``module``; equal arguments give equal buffers.

        Args:
            module: What ``build`` returned.
            embeddings: Of all training images, (n, d) float32, for each of ``bundles``.
        """
        ...


objectives: Registry[type[Objective]] = Registry("embedkit.train.objectives", "objective")
"""Every objective by name; each entry is a frozen dataclass that is an ``Objective``."""

_MEMBERS: dict[str, tuple[type, str]] = {
    "teacher": (Taught, "teacher_momentum(progress)"),
    "teacher_module": (Taught, "teacher_momentum(progress)"),
    "teacher_blocks": (Taught, "teacher_momentum(progress)"),
    "mask": (Masking, "hide(grid, count, generator) and mask_token(module)"),
    "embeddings": (Distilling, "bundles"),
    "adversarial": (Opposed, "adversary and harm(changed, clean, rows, module)"),
}
"""What an objective must have for some of its needs."""


def build_objective(name: str, arguments: Mapping[str, object]) -> Objective:
    """Return the objective called ``name`` with these arguments.

    Raises:
        InvalidInput: If the name or an argument is unknown, a value is out of range, or the
            objective asks for something without saying how.
    """
    objective = configure(objectives.get(name), arguments, noun=f"objective {name!r}")
    unknown = objective.needs - NEEDS
    if unknown:
        raise InvalidInput(f"expected needs among {sorted(NEEDS)}, got {sorted(unknown)}")
    for need, (protocol, members) in _MEMBERS.items():
        if need in objective.needs and not isinstance(objective, protocol):
            raise InvalidInput(
                f"expected {name!r}, which needs {need!r}, to have {members}, got none"
            )
    return objective


def supplied(value: T | None, need: str) -> T:
    """The value that the loop supplies for a need.

    Raises:
        InvalidInput: If it is absent.
    """
    if value is None:
        raise InvalidInput(f"expected a batch with {need}, got none; declare {need!r} in needs")
    return value
