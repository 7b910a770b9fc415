"""Moutakanni et al., You Don't Need Data-Augmentation in Self-Supervised Learning, 2024."""

from embedkit.perturb.preset import Specs, presets

__all__ = ["crop"]


@presets.register("crop")
def crop(channels: int, image_px: int) -> Specs:
    """A window of 7/8 of each side at a random place, always of the same size; nothing else.

    The paper brings images to 256 pixels and shows 224 of them: no zoom that differs between
    views, no colours, no mirroring, so that no invariance is built in by hand.
    """
    window = [(224 / 256) ** 2] * 2
    return [{"name": "geometric", "area": window, "ratio": [1.0, 1.0], "flip": 0.0}]
