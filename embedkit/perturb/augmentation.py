"""The Augmentation contract: random changes of a whole batch at once, on its own device.

An augmentation is a frozen dataclass of its arguments, called with pixels and a generator.
Every random choice is drawn per image, as one tensor for the batch; nothing loops over images.
The result is new, has the shape of the input and stays in [0, 1].
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol, runtime_checkable

import torch

from embedkit.encoders.encoder import UnitPixels
from embedkit.errors import InvalidInput
from embedkit.registry import Registry, configure

__all__ = [
    "Augmentation",
    "Mixing",
    "Pipeline",
    "Shares",
    "Views",
    "augmentations",
    "build_augmentation",
    "mixed_views",
    "views",
]

Views = Annotated[torch.Tensor, "v b c h w"]
"""Several augmented versions of one batch."""

Shares = Annotated[torch.Tensor, "b k"]
"""How much of each image is of each class, at least 0, with sum 1."""


class Augmentation(Protocol):
    """A random change of a batch of images."""

    def __call__(self, pixels: UnitPixels, generator: torch.Generator) -> UnitPixels:
        """Return changed images; the input is left as it was.

        Args:
            pixels: Images (b, c, h, w) in [0, 1], float32 or float64.
            generator: Source of every random number; equal states give equal results.

        Raises:
            InvalidInput: If the pixels have another rank or dtype.
        """
        ...


@runtime_checkable
class Mixing(Protocol):
    """An augmentation that puts several images into one, so that one label is not enough."""

    def mix(
        self, pixels: UnitPixels, targets: Shares, generator: torch.Generator
    ) -> tuple[UnitPixels, Shares]:
        """Return mixed images, and their targets mixed in the same proportions.

        Args:
            pixels: As for the call, which gives the same images.
            targets: Shares of the classes in every image.
            generator: As for the call.
        """
        ...


augmentations: Registry[Callable[..., Augmentation]] = Registry(
    "embedkit.perturb.augmentations", "augmentation"
)


@dataclass(frozen=True)
class Pipeline:
    """Augmentations one after the other; itself an augmentation.

    Attributes:
        steps: In the order in which they are applied.
    """

    steps: tuple[Augmentation, ...]

    def __call__(self, pixels: UnitPixels, generator: torch.Generator) -> UnitPixels:
        """Return the images after every step; without steps, a copy."""
        if not self.steps:
            return pixels.clone()
        for step in self.steps:
            pixels = step(pixels, generator)
        return pixels

    @property
    def mixes(self) -> bool:
        """Whether any step mixes images, so that targets have to be mixed along."""
        return any(isinstance(step, Mixing) for step in self.steps)

    def mix(
        self, pixels: UnitPixels, targets: Shares, generator: torch.Generator
    ) -> tuple[UnitPixels, Shares]:
        """Return what the call does, and the targets as the steps mix them."""
        if not self.steps:
            return pixels.clone(), targets
        for step in self.steps:
            if isinstance(step, Mixing):
                pixels, targets = step.mix(pixels, targets, generator)
            else:
                pixels = step(pixels, generator)
        return pixels, targets


def build_augmentation(specs: Sequence[Mapping[str, object]]) -> Pipeline:
    """Build a pipeline from a recipe's list of augmentations.

    Args:
        specs: One table per step: ``name`` and the arguments of that augmentation.

    Raises:
        InvalidInput: If a name or an argument is unknown, missing or out of range.

    Example:
        >>> pipeline = build_augmentation([{"name": "geometric", "flip": 0.0}])
        >>> pipeline(torch.zeros(4, 1, 8, 8), torch.Generator()).shape
        torch.Size([4, 1, 8, 8])
    """
    steps = []
    for spec in specs:
        arguments = dict(spec)
        name = arguments.pop("name", None)
        if not isinstance(name, str):
            raise InvalidInput(f"expected an augmentation with 'name', got {dict(spec)!r}")
        entry = augmentations.get(name)
        steps.append(configure(entry, arguments, noun=f"augmentation {name!r}"))
    return Pipeline(tuple(steps))


def views(
    pixels: UnitPixels, pipeline: Augmentation, count: int, generator: torch.Generator
) -> Views:
    """Return ``count`` independently augmented versions of each image, (v, b, c, h, w).

    Raises:
        InvalidInput: If ``count`` is below 1.
    """
    if count < 1:
        raise InvalidInput(f"expected at least 1 view, got {count}")
    repeated = pixels.repeat(count, 1, 1, 1)
    return pipeline(repeated, generator).reshape(count, *pixels.shape)


def mixed_views(
    pixels: UnitPixels,
    targets: Shares,
    pipeline: Pipeline,
    count: int,
    generator: torch.Generator,
) -> tuple[Views, torch.Tensor]:
    """Return what ``views`` does, and each view's targets, (v, b, k).

    Any view of any other image may be mixed into a view.
    """
    repeated = pixels.repeat(count, 1, 1, 1)
    mixed, shares = pipeline.mix(repeated, targets.repeat(count, 1), generator)
    return (
        mixed.reshape(count, *pixels.shape),
        shares.reshape(count, *targets.shape),
    )
