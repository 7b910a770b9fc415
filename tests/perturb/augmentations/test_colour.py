"""The one matrix is recovered from images by least squares and compared with single steps."""

import colorsys
import itertools
import math

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.perturb.augmentations.colour import Colour

LUMA = np.array([0.299, 0.587, 0.114])


def _images(n: int = 40, low: float = 0.45, high: float = 0.55) -> torch.Tensor:
    """Colours near grey, where nothing is clipped."""
    drawn = torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    return drawn * (high - low) + low


def _run(colour: Colour, pixels: torch.Tensor, seed: int = 0) -> np.ndarray:
    return colour(pixels, torch.Generator().manual_seed(seed)).numpy()


def _brighten(image, factor):
    return image * factor


def _contrast(image, factor):
    return factor * image + (1 - factor) * np.einsum("c,chw->hw", LUMA, image).mean()


def _saturate(image, factor):
    return factor * image + (1 - factor) * np.einsum("c,chw->hw", LUMA, image)


def _turn_hue(image, turns):
    """Through YIQ and back, pixel by pixel, with the published inverse of the NTSC axes."""
    turned = np.empty_like(image)
    cosine, sine = math.cos(2 * math.pi * turns), math.sin(2 * math.pi * turns)
    for row, column in np.ndindex(*image.shape[1:]):
        red, green, blue = image[:, row, column]
        y = LUMA @ (red, green, blue)
        i = 0.595716 * red - 0.274453 * green - 0.321263 * blue
        q = 0.211456 * red - 0.522591 * green + 0.311135 * blue
        i, q = i * cosine + q * sine, q * cosine - i * sine
        turned[:, row, column] = (
            y + 0.95629572 * i + 0.62102442 * q,
            y - 0.27212210 * i - 0.64738060 * q,
            y - 1.10698902 * i + 1.70461500 * q,
        )
    return turned


def _recover(image: np.ndarray, changed: np.ndarray) -> dict[str, float]:
    """The four parameters behind one image's change."""
    design = np.concatenate([image.reshape(3, -1), np.ones((1, 64))]).T
    solution = np.linalg.lstsq(design, changed.reshape(3, -1).T, rcond=None)[0]
    matrix, offset = solution[:3].T, solution[3]
    scale = (matrix @ np.ones(3))[0]
    mean = np.einsum("c,chw->hw", LUMA, image).mean()
    brightness = offset[0] / mean + scale
    to_yiq = np.array([LUMA, [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
    in_yiq = to_yiq @ matrix @ np.linalg.inv(to_yiq) / scale
    return {
        "brightness": brightness,
        "contrast": scale / brightness,
        "saturation": math.hypot(in_yiq[1, 1], in_yiq[1, 2]),
        "hue": math.atan2(in_yiq[1, 2], in_yiq[1, 1]) / (2 * math.pi),
    }


def test_one_matrix_equals_the_four_steps_in_any_order():
    steps = {
        "brightness": _brighten,
        "contrast": _contrast,
        "saturation": _saturate,
        "hue": _turn_hue,
    }
    pixels = _images(24)
    changed = _run(Colour(0.4, 0.4, 0.4, 0.1, greyscale=0.0, p=1.0), pixels)
    orders = list(itertools.permutations(steps))
    for image, result, order in zip(pixels.numpy(), changed, orders, strict=True):
        drawn = _recover(image, result)
        for name in ("brightness", "contrast", "saturation"):
            assert 0.6 - 1e-9 <= drawn[name] <= 1.4 + 1e-9
        assert abs(drawn["hue"]) <= 0.1 + 1e-9
        one_by_one = image
        for name in order:
            one_by_one = steps[name](one_by_one, drawn[name])
        np.testing.assert_allclose(result, one_by_one, atol=1e-6)


def test_draws_fill_their_ranges_independently():
    pixels = _images(600)
    changed = _run(Colour(0.4, 0.3, 0.2, 0.1, greyscale=0.0, p=1.0), pixels)
    drawn = [_recover(a, b) for a, b in zip(pixels.numpy(), changed, strict=True)]
    table = np.array([list(row.values()) for row in drawn])
    for column, (middle, half) in zip(
        table.T, [(1, 0.4), (1, 0.3), (1, 0.2), (0, 0.1)], strict=True
    ):
        assert column.min() == pytest.approx(middle - half, abs=0.03 * half)
        assert column.max() == pytest.approx(middle + half, abs=0.03 * half)
        assert column.mean() == pytest.approx(middle, abs=0.1 * half)
    correlation = np.corrcoef(table.T)
    assert np.abs(correlation - np.eye(4)).max() < 0.17


def test_brightness_alone_scales():
    pixels = _images()
    ratio = _run(Colour(0.4, 0, 0, 0, greyscale=0.0, p=1.0), pixels) / pixels.numpy()
    assert np.ptp(ratio, axis=(1, 2, 3)).max() < 1e-9
    assert np.ptp(ratio) > 0.5


def test_contrast_alone_keeps_the_mean_luma():
    pixels = _images()
    changed = _run(Colour(0, 0.4, 0, 0, greyscale=0.0, p=1.0), pixels)
    before = np.einsum("c,nchw->n", LUMA, pixels.numpy())
    np.testing.assert_allclose(np.einsum("c,nchw->n", LUMA, changed), before)


@pytest.mark.parametrize("arguments", [{"saturation": 0.4}, {"hue": 0.5}])
def test_saturation_and_hue_keep_every_luma(arguments):
    still = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    pixels = _images()
    changed = _run(Colour(**{**still, **arguments}, greyscale=0.0, p=1.0), pixels)
    before = np.einsum("c,nchw->nhw", LUMA, pixels.numpy())
    np.testing.assert_allclose(np.einsum("c,nchw->nhw", LUMA, changed), before)
    assert np.abs(changed - pixels.numpy()).max() > 0.01


def test_hue_turns_the_way_hsv_does():
    """Red, green and blue move round the circle by about what was drawn."""
    pixels = torch.full((60, 3, 8, 8), 0.45).double()
    for index in range(60):
        pixels[index, index % 3] = 0.55
    noisy = pixels + _images(60, -0.01, 0.01)
    changed = _run(Colour(0, 0, 0, 0.15, greyscale=0.0, p=1.0), noisy)
    for image, result in zip(noisy.numpy(), changed, strict=True):
        before = colorsys.rgb_to_hsv(*image.mean(axis=(1, 2)))[0]
        after = colorsys.rgb_to_hsv(*result.mean(axis=(1, 2)))[0]
        moved = (after - before + 0.5) % 1 - 0.5
        assert moved == pytest.approx(_recover(image, result)["hue"], abs=0.06)


def test_greyscale_leaves_luma_in_every_channel_without_the_jitter():
    pixels = _images(low=0.0, high=1.0)
    changed = _run(Colour(greyscale=1.0, p=0.0), pixels)
    luma = np.einsum("c,nchw->nhw", LUMA, pixels.numpy())
    for channel in range(3):
        np.testing.assert_allclose(changed[:, channel], luma)


def test_greyscale_is_as_frequent_as_asked():
    changed = _run(Colour(greyscale=0.2, p=1.0), _images(1500))
    grey = np.ptp(changed, axis=1).max(axis=(1, 2)) < 1e-9
    assert grey.mean() == pytest.approx(0.2, abs=0.04)


def test_grey_images_get_brightness_and_contrast():
    pixels = _images()[:, :1]
    changed = _run(Colour(p=1.0), pixels)
    for image, result in zip(pixels.numpy(), changed, strict=True):
        scale, offset = np.polyfit(image.ravel(), result.ravel(), 1)
        brightness = scale + offset / image.mean()
        assert 0.6 - 1e-9 <= brightness <= 1.4 + 1e-9
        assert 0.6 - 1e-9 <= scale / brightness <= 1.4 + 1e-9
        np.testing.assert_allclose(result, scale * image + offset, atol=1e-9)


def test_results_are_clipped_once_at_the_end():
    pixels = torch.ones(64, 3, 2, 2)
    pixels[:, :, 0] = 0
    changed = _run(Colour(1.0, 1.0, 1.0, 0.5, p=1.0), pixels)
    assert changed.min() == 0
    assert changed.max() == 1


def test_other_channel_counts_are_refused():
    with pytest.raises(InvalidInput, match="expected images of 1 or 3 channels, got 2"):
        Colour()(torch.zeros(1, 2, 4, 4), torch.Generator())


@pytest.mark.parametrize("arguments", [{"hue": 0.6}, {"contrast": -0.1}])
def test_impossible_ranges_are_refused(arguments):
    with pytest.raises(InvalidInput, match="expected brightness, contrast, saturation"):
        Colour(**arguments)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_factors_that_are_not_finite_are_refused(name):
    with pytest.raises(InvalidInput, match=f"expected a finite {name}, got nan"):
        Colour(**{name: float("nan")})
