"""Preset: augmentations of a published recipe, under one name, for images of any size."""

from collections.abc import Callable

from embedkit.registry import Registry

__all__ = ["Specs", "preset", "presets"]

Specs = list[dict[str, object]]
"""One table per step, as a recipe has them: ``name`` and arguments."""

presets: Registry[Callable[[int, int], Specs]] = Registry("embedkit.perturb.presets", "preset")
"""Every preset by name: from channels and image size to the tables."""


def preset(name: str, channels: int, image_px: int) -> Specs:
    """Return the augmentations of a preset, for ``build_augmentation``.

    Args:
        name: Of the registry.
        channels: 1 or 3; grey images get brightness and contrast alone.
        image_px: Shorter side of the images in pixels.

    Raises:
        InvalidInput: If the name is unknown; suggests the nearest one.

    Example:
        >>> [step["name"] for step in preset("simclr", 3, 32)]
        ['geometric', 'colour']
    """
    return presets.get(name)(channels, image_px)
