"""Chen et al., A Simple Framework for Contrastive Learning, ICML 2020: appendices A and B.9."""

from embedkit.perturb.preset import Specs, presets

__all__ = ["simclr"]


@presets.register("simclr")
def simclr(channels: int, image_px: int) -> Specs:
    """Crop, flip, colours and blur; images up to 64 px get half the colours and no blur."""
    small = image_px <= 64
    strength = 0.5 if small else 1.0
    # A fifth of an 8 px image is under 4 px wide: too little to recognise anything by.
    least_area = 0.5 if image_px < 16 else 0.2 if small else 0.08
    colour: dict[str, object] = {"brightness": 0.8 * strength, "contrast": 0.8 * strength}
    if channels == 3:
        colour |= {"saturation": 0.8 * strength, "hue": 0.2 * strength, "greyscale": 0.2}
    specs: Specs = [
        {"name": "geometric", "area": [least_area, 1.0]},
        {"name": "colour", "p": 0.8, **colour},
    ]
    if not small:
        radius_px = max(1, round(0.05 * image_px))
        specs.append({"name": "blur", "sigma_px": [0.1, 2.0], "radius_px": radius_px, "p": 0.5})
    return specs
