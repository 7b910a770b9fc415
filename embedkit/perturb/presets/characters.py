"""How handwriting differs: shifts, turns and scalings."""

from embedkit.perturb.preset import Specs, presets

__all__ = ["characters"]


@presets.register("characters")
def characters(channels: int, image_px: int) -> Specs:
    """Small shifts, turns and scalings without mirroring, for letters and digits."""
    turns = {"rotate_deg": 12.0, "translate": 0.08, "zoom": [0.85, 1.15], "shear_deg": 8.0}
    whole = {"area": [1.0, 1.0], "ratio": [1.0, 1.0], "flip": 0.0}
    return [{"name": "geometric", **whole, **turns}]
