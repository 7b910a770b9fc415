"""The operations against Pillow's, which the published policies were found with."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from embedkit.perturb.operations import OPERATIONS, apply_operations

GREY = (128, 128, 128)


@pytest.fixture
def pictures(rng):
    """Smooth colour images (12, 20, 24, 3) uint8 of different ranges."""
    coarse = rng.random((12, 5, 6, 3)) * rng.uniform(0.3, 1, size=(12, 1, 1, 1))
    return np.stack(
        [
            np.asarray(
                Image.fromarray((255 * small).astype(np.uint8)).resize(
                    (24, 20), Image.Resampling.BICUBIC
                )
            )
            for small in coarse
        ]
    )


def run(name, images, strengths):
    """One operation with a strength per image, on 8-bit images; rounded to 8 bits again."""
    pixels = torch.tensor(images).permute(0, 3, 1, 2).double() / 255
    chosen = torch.full((len(images),), OPERATIONS.index(name))
    changed = apply_operations(pixels, chosen, torch.tensor(strengths, dtype=torch.float64))
    return (changed * 255).permute(0, 2, 3, 1).numpy()


def pillow(images, function, strengths):
    pairs = zip(images, strengths, strict=True)
    return np.stack([np.asarray(function(Image.fromarray(i), s)) for i, s in pairs]).astype(
        float
    )


SIGNED = np.linspace(-0.9, 0.9, 12)


@pytest.mark.parametrize(
    ("name", "enhancer", "tolerance"),
    [
        ("brightness", ImageEnhance.Brightness, 1.01),
        ("colour", ImageEnhance.Color, 2.01),
        # Pillow rounds the mean luma, and the smoothed image.
        ("contrast", ImageEnhance.Contrast, 2.01),
        ("sharpness", ImageEnhance.Sharpness, 2.01),
    ],
)
def test_enhancements(pictures, name, enhancer, tolerance):
    expected = pillow(pictures, lambda i, s: enhancer(i).enhance(1 + s), SIGNED)
    found = run(name, pictures, SIGNED)
    assert np.abs(found - expected).max() <= tolerance
    assert np.abs(found - pictures).max() > 10


def test_solarize_invert_and_equalize_are_the_same_to_the_bit(pictures):
    thresholds = np.arange(12) * 20
    expected = pillow(pictures, lambda i, s: ImageOps.solarize(i, int(s)), thresholds)
    np.testing.assert_allclose(run("solarize", pictures, thresholds / 255), expected, atol=1e-6)
    nothing = np.zeros(12)
    for name, function in (("invert", ImageOps.invert), ("equalize", ImageOps.equalize)):
        expected = pillow(pictures, lambda i, _, f=function: f(i), nothing)
        np.testing.assert_allclose(run(name, pictures, nothing), expected, atol=1e-6)


def test_auto_contrast(pictures):
    expected = pillow(pictures, lambda i, _: ImageOps.autocontrast(i), np.zeros(12))
    assert np.abs(run("auto_contrast", pictures, np.zeros(12)) - expected).max() <= 1.01


def test_posterize_keeps_the_first_bits(pictures):
    """Pillow's levels are at the lower end of 8 bits, ours at k / 2 ** bits."""
    bits = np.repeat([4, 5, 7, 8], 3)
    found = run("posterize", pictures, bits)
    levels = pictures >> (8 - bits).reshape(-1, 1, 1, 1)
    np.testing.assert_allclose(
        found / 255, levels / 2.0 ** bits.reshape(-1, 1, 1, 1), atol=1e-9
    )


@pytest.mark.parametrize(
    ("name", "scale", "matrix"),
    [
        ("shear_x", 0.3, lambda s: (1, s, 0, 0, 1, 0)),
        ("shear_y", 0.3, lambda s: (1, 0, 0, s, 1, 0)),
        ("translate_x", 0.4, lambda s: (1, 0, -int(24 * s), 0, 1, 0)),
        ("translate_y", 0.4, lambda s: (1, 0, 0, 0, 1, -int(20 * s))),
    ],
)
def test_shears_and_shifts(pictures, name, scale, matrix):
    strengths = SIGNED * scale

    def function(image, strength):
        affine, bilinear = Image.Transform.AFFINE, Image.Resampling.BILINEAR
        return image.transform(image.size, affine, matrix(strength), bilinear, fillcolor=GREY)

    _assert_inside(pictures, function, strengths, run(name, pictures, strengths))


def test_rotations(pictures):
    angles = SIGNED * 30

    def function(image, degrees):
        return image.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=GREY)

    _assert_inside(pictures, function, angles, run("rotate", pictures, angles))


def test_every_image_gets_its_own_operation(pictures):
    pixels = torch.tensor(pictures).permute(0, 3, 1, 2).float() / 255
    chosen = torch.tensor([OPERATIONS.index(n) for n in ("invert", "identity", "brightness")])
    chosen = chosen.repeat(4)
    strength = torch.linspace(-0.5, 0.5, 12)
    changed = apply_operations(pixels, chosen, strength)
    torch.testing.assert_close(changed[::3], 1 - pixels[::3])
    assert torch.equal(changed[1::3], pixels[1::3])
    factor = 1 + strength[2::3].view(-1, 1, 1, 1)
    torch.testing.assert_close(changed[2::3], (pixels[2::3] * factor).clamp(0, 1))


def test_grey_images_have_no_colour_to_lose():
    pixels = torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    chosen = torch.full((4,), OPERATIONS.index("colour"))
    torch.testing.assert_close(apply_operations(pixels, chosen, torch.ones(4)), pixels)


def _assert_inside(images, function, strengths, found):
    """Equal wherever all of a pixel's source lies inside; on the way out the two fill apart."""
    expected = pillow(images, function, strengths)
    inner = np.zeros_like(images)
    inner[:, 1:-1, 1:-1] = 255
    kept = pillow(inner, function, strengths).min(axis=-1) == 255
    assert np.abs(found - expected)[kept].max() <= 1.01
    assert kept.mean() > 0.5
