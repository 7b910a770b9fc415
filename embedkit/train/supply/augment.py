"""Augment: what makes whole views of images, and what makes small ones."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch.nn import functional

from embedkit.errors import InvalidInput
from embedkit.perturb.adversary import Adversary
from embedkit.perturb.augmentation import Pipeline, build_augmentation, views
from embedkit.perturb.preset import preset
from embedkit.preprocess import InputSpec
from embedkit.train.objective import Objective, objectives
from embedkit.train.recipe import Recipe
from embedkit.train.settings import ViewsSection

__all__ = ["Augment", "augment_of"]


class Augment(NamedTuple):
    """The augmentations of one run.

    Attributes:
        whole: Of whole views.
        small: Of small crops.
        settings: Which small crops and adversarial views there are.
    """

    whole: Pipeline
    small: Pipeline
    settings: ViewsSection

    @property
    def adversary(self) -> Adversary | None:
        """What changes the last whole view, or None."""
        settings = self.settings
        if not settings.adversarial_255:
            return None
        return Adversary(
            settings.adversarial_255, settings.adversarial_steps, settings.adversarial_norm
        )

    def crops(self, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Small crops, each at its own place and with its own colours, (l, b, c, h', w')."""
        settings = self.settings
        drawn = views(pixels, self.small, settings.local, generator)
        size = [max(1, round(settings.local_side * side)) for side in pixels.shape[2:]]
        reduced = functional.interpolate(drawn.flatten(0, 1), size, mode="area")
        return reduced.reshape(settings.local, len(pixels), *reduced.shape[1:])


def augment_of(recipe: Recipe, objective: Objective, spec: InputSpec) -> Augment:
    """Build the augmentations that a recipe names, and check that the objective can use them.

    Small crops get the same as whole views, but for the area that they cover.

    Raises:
        InvalidInput: If a name or an argument is wrong, or something is asked for that the
            objective makes no use of.
    """
    named = recipe.augmentation
    steps: Sequence[Mapping[str, object]] = named if not isinstance(named, str) else ()
    if isinstance(named, str) and named != "none":
        steps = preset(named, spec.channels, min(spec.height, spec.width))
    whole, settings = build_augmentation(steps), recipe.views
    if settings.local and "local" not in objective.needs:
        raise InvalidInput(
            f"expected an objective that compares small crops for views.local = "
            f"{settings.local}, got {recipe.objective.name!r}; use {_with('local')}, or leave "
            "views.local out"
        )
    if whole.mixes and "targets" not in objective.needs:
        raise InvalidInput(
            "expected an objective that takes mixed labels for augmentations that mix images, "
            f"got {recipe.objective.name!r}; use {_with('targets')}, or leave them out"
        )
    if settings.adversarial_255 and "adversarial" in objective.needs:
        raise InvalidInput(
            f"expected no views.adversarial_255 for {recipe.objective.name!r}, which makes "
            f"adversarial views of its own, got {settings.adversarial_255}; set "
            "objective.radius_255 instead"
        )
    return Augment(whole, build_augmentation(_small(steps, settings)), settings)


def _small(
    steps: Sequence[Mapping[str, object]], settings: ViewsSection
) -> list[Mapping[str, object]]:
    area = list(settings.local_area)
    small = [
        {**step, "area": area} if step.get("name") == "geometric" else step for step in steps
    ]
    if not any(step.get("name") == "geometric" for step in steps):
        small.insert(0, {"name": "geometric", "flip": 0.0, "area": area})
    return small


def _with(need: str) -> str:
    """The objectives that declare a need."""
    names = (n for n in objectives.names() if need in objectives.get(n)().needs)
    return ", ".join(names)
