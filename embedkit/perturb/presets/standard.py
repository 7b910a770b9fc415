"""Mild crop and flip, the usual augmentation of supervised training."""

from embedkit.perturb.preset import Specs, presets

__all__ = ["standard"]


@presets.register("standard")
def standard(channels: int, image_px: int) -> Specs:
    """Mild crop and flip, for supervised training."""
    return [{"name": "geometric", "area": [0.6, 1.0]}]
