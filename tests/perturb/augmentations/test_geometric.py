"""Two extra channels that hold each pixel's own place show where the others were sampled."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.perturb.augmentations.geometric import Geometric

STILL = Geometric(area=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0)
SIZE = (18, 30)


def _with_places(pixels: torch.Tensor) -> torch.Tensor:
    """Append the column and row of each pixel, divided by 64 to stay in [0, 1]."""
    b, _, h, w = pixels.shape
    columns = (torch.arange(w) / 64).expand(b, 1, h, w)
    rows = (torch.arange(h) / 64).view(h, 1).expand(b, 1, h, w)
    return torch.cat([pixels, columns.to(pixels), rows.to(pixels)], dim=1)


def _run(geometric: Geometric, n: int = 200, size: tuple[int, int] = SIZE, seed: int = 0):
    """Images, what became of them, and the (x, y) in pixels that each value was taken from."""
    pixels = torch.rand(n, 2, *size, generator=torch.Generator().manual_seed(1)).double()
    changed = geometric(_with_places(pixels), torch.Generator().manual_seed(seed))
    return pixels.numpy(), changed[:, :2].numpy(), (changed[:, 2:] * 64).numpy()


def _sample(image: np.ndarray, x: float, y: float) -> np.ndarray:
    """Bilinear interpolation of (c, h, w) at one place inside, from its definition."""
    left, top = min(int(x), image.shape[2] - 2), min(int(y), image.shape[1] - 2)
    right, below = x - left, y - top
    upper = (1 - right) * image[:, top, left] + right * image[:, top, left + 1]
    lower = (1 - right) * image[:, top + 1, left] + right * image[:, top + 1, left + 1]
    return (1 - below) * upper + below * lower


def _jacobians(places: np.ndarray) -> np.ndarray:
    """d(source x, y) / d(output x, y) in pixels at the middle of each image, (n, 2, 2)."""
    row, column = places.shape[2] // 2, places.shape[3] // 2
    across = places[:, :, row, column + 1] - places[:, :, row, column]
    down = places[:, :, row + 1, column] - places[:, :, row, column]
    return np.stack([across, down], axis=2)


def test_without_any_change_the_image_stays():
    pixels, changed, _ = _run(STILL)
    np.testing.assert_allclose(changed, pixels, atol=1e-12)


def test_flip_reverses_the_columns():
    pixels, changed, _ = _run(replace(STILL, flip=1.0))
    np.testing.assert_allclose(changed, pixels[..., ::-1], atol=1e-12)


def test_flip_mirrors_whatever_else_is_done():
    """With equal seeds all other draws are equal."""
    turned = Geometric(flip=0.0, rotate_deg=20.0, shear_deg=10.0, translate=0.1)
    _, straight, _ = _run(turned)
    _, mirrored, _ = _run(replace(turned, flip=1.0))
    np.testing.assert_allclose(mirrored, straight[..., ::-1], atol=1e-9)


def test_flip_is_as_frequent_as_asked():
    _, _, places = _run(replace(STILL, flip=0.3), n=2000, size=(2, 4))
    flipped = places[:, 0, 0, 0] > places[:, 0, 0, -1]
    assert flipped.mean() == pytest.approx(0.3, abs=0.04)


@pytest.mark.parametrize("size", [(18, 30), (8, 8), (32, 20)])
def test_every_value_is_the_bilinear_sample_of_a_crop(size):
    pixels, changed, places = _run(Geometric(), n=12, size=size)
    for image, result, (xs, ys) in zip(pixels, changed, places, strict=True):
        by_hand = np.empty_like(result)
        for row in range(size[0]):
            for column in range(size[1]):
                by_hand[:, row, column] = _sample(image, xs[row, column], ys[row, column])
        np.testing.assert_allclose(result, by_hand, atol=1e-9)


def test_crop_is_a_window_sampled_at_even_steps():
    """Places rebuilt from the window alone: size from the steps, position from the middle."""
    _, _, places = _run(Geometric(flip=0.0))
    h, w = SIZE
    for xs, ys in places:
        middle_x, step_x = (xs[0, 14] + xs[0, 15]) / 2, xs[0, 15] - xs[0, 14]
        middle_y, step_y = (ys[8, 0] + ys[9, 0]) / 2, ys[9, 0] - ys[8, 0]
        column_edges = middle_x + np.array([-0.5, 0.5]) * step_x * w
        row_edges = middle_y + np.array([-0.5, 0.5]) * step_y * h
        assert column_edges[0] > -0.5 - 1e-9
        assert column_edges[1] < w - 0.5 + 1e-9
        assert row_edges[0] > -0.5 - 1e-9
        assert row_edges[1] < h - 0.5 + 1e-9
        expected_x = middle_x + (np.arange(w) - (w - 1) / 2) * step_x
        expected_y = middle_y + (np.arange(h) - (h - 1) / 2) * step_y
        # Beyond the centre of the outermost pixel its value is repeated.
        np.testing.assert_allclose(xs, np.tile(expected_x.clip(0, w - 1), (h, 1)), atol=1e-9)
        np.testing.assert_allclose(ys.T, np.tile(expected_y.clip(0, h - 1), (w, 1)), atol=1e-9)


def test_crops_have_the_asked_area_and_ratio_and_reach_every_corner():
    _, _, places = _run(Geometric(area=(0.2, 0.6), ratio=(0.5, 2.0), flip=0.0), n=3000)
    steps = _jacobians(places)
    area = steps[:, 0, 0] * steps[:, 1, 1]
    assert 0.2 - 1e-9 <= area.min() < 0.21
    assert 0.59 < area.max() <= 0.6 + 1e-9
    assert area.mean() == pytest.approx(0.4, abs=0.01)
    ratio = steps[:, 0, 0] * SIZE[1] / (steps[:, 1, 1] * SIZE[0])
    assert ratio.min() >= 0.5 - 1e-9
    assert ratio.max() <= 2 + 1e-9
    for axis, last in ((0, SIZE[1] - 1), (1, SIZE[0] - 1)):
        assert places[:, axis].min() < 0.3
        assert places[:, axis].max() > last - 0.3
        middles = places[:, axis].mean(axis=(1, 2))
        assert middles.mean() == pytest.approx(last / 2, abs=0.35)


def test_rotation_keeps_lengths_and_right_angles_in_pixels():
    _, _, places = _run(replace(STILL, rotate_deg=25.0))
    turned = _jacobians(places)
    identity = np.tile(np.eye(2), (len(turned), 1, 1))
    np.testing.assert_allclose(turned.transpose(0, 2, 1) @ turned, identity, atol=1e-9)
    degrees = np.degrees(np.arctan2(turned[:, 1, 0], turned[:, 0, 0]))
    assert -25 <= degrees.min() < -23
    assert 23 < degrees.max() <= 25
    # The middle of the image stays where it is.
    middle = places[:, :, 8:10, 14:16].mean(axis=(2, 3))
    np.testing.assert_allclose(middle, np.tile([14.5, 8.5], (len(middle), 1)), atol=1e-9)


def test_zoom_magnifies_both_axes_alike():
    _, _, places = _run(replace(STILL, zoom=(0.5, 2.0)))
    steps = _jacobians(places)
    np.testing.assert_allclose(steps[:, 0, 0], steps[:, 1, 1], atol=1e-9)
    magnification = 1 / steps[:, 0, 0]
    assert 0.5 - 1e-9 <= magnification.min() < 0.53
    assert 1.9 < magnification.max() <= 2 + 1e-9
    assert (magnification > 1).mean() == pytest.approx(0.5, abs=0.12)


def test_shear_slants_the_columns_alone():
    _, _, places = _run(replace(STILL, shear_deg=20.0))
    slanted = _jacobians(places)
    np.testing.assert_allclose(slanted[:, :, 0], np.tile([1.0, 0.0], (200, 1)), atol=1e-9)
    np.testing.assert_allclose(slanted[:, 1, 1], 1, atol=1e-9)
    degrees = np.degrees(np.arctan(slanted[:, 0, 1]))
    assert -20 <= degrees.min() < -18
    assert 18 < degrees.max() <= 20


def test_translation_is_a_fraction_of_each_side():
    _, _, places = _run(replace(STILL, translate=0.2))
    middle = places[:, :, 8:10, 14:16].mean(axis=(2, 3))
    for axis, side in ((0, SIZE[1]), (1, SIZE[0])):
        shift = (middle[:, axis] - (side - 1) / 2) / side
        assert -0.2 <= shift.min() < -0.19
        assert 0.19 < shift.max() <= 0.2


def test_a_crop_that_is_turned_is_the_same_window_turned_about_its_middle():
    """With equal seeds the window is equal, so the two maps differ by the rotation alone."""
    _, _, straight = _run(Geometric(area=(0.3, 0.3), flip=0.0), size=(40, 60))
    _, _, turned = _run(Geometric(area=(0.3, 0.3), flip=0.0, rotate_deg=10.0), size=(40, 60))
    before, after = _jacobians(straight), _jacobians(turned)
    rotation = after @ np.linalg.inv(before)
    identity = np.tile(np.eye(2), (len(rotation), 1, 1))
    np.testing.assert_allclose(rotation.transpose(0, 2, 1) @ rotation, identity, atol=1e-9)
    assert np.ptp(np.arctan2(rotation[:, 1, 0], rotation[:, 0, 0])) > math.radians(15)


@pytest.mark.parametrize(
    ("padding", "expected"),
    [("zeros", 0.0), ("border", 1.0), ("reflection", 1.0)],
)
def test_padding_decides_what_lies_outside(padding, expected):
    shrunk = replace(STILL, zoom=(0.25, 0.25), padding=padding)
    changed = shrunk(torch.ones(2, 1, 16, 16), torch.Generator().manual_seed(0))
    assert changed[:, :, 0, 0].tolist() == [[expected]] * 2
    assert changed[:, :, 8, 8].tolist() == [[1.0]] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"area": (0.0, 1.0)}, "expected area, ratio and zoom above 0"),
        ({"area": (0.5, 1.5)}, "expected area .* between 0 and 1"),
        ({"ratio": (2.0, 1.0)}, "expected ratio"),
        ({"zoom": (-1.0, 1.0)}, "expected zoom"),
        ({"flip": 1.5}, "expected flip"),
        ({"shear_deg": 90.0}, "below 90"),
        ({"rotate_deg": -5.0}, "of at least 0"),
        ({"rotate_deg": float("inf")}, "a finite rotate_deg, got inf"),
        ({"translate": float("nan")}, "a finite translate, got nan"),
        ({"zoom": (1.0, float("inf"))}, "expected zoom .* finite"),
    ],
)
def test_impossible_ranges_are_refused(arguments, message):
    with pytest.raises(InvalidInput, match=message):
        Geometric(**arguments)
