"""Blurs of a single bright point and of a step, whose results are known."""

import numpy as np
import pytest

from embedkit.evaluate.corruption import corrupt
from embedkit.evaluate.measurement.pixels.filters import disk, motion, zoomed

POINT = np.zeros((1, 33, 33, 1), np.uint8)
POINT[0, 16, 16] = 255


def test_gaussian_blur_is_a_gaussian():
    found = corrupt(POINT, "gaussian_blur", 5, ids=("a",))[0, :, :, 0] / 255
    y, x = np.mgrid[-16:17, -16:17]
    expected = np.exp(-(x**2 + y**2) / 2) / (2 * np.pi)
    np.testing.assert_allclose(found, expected, atol=1.2 / 255)


def test_defocus_spreads_a_point_over_a_disk():
    found = corrupt(POINT, "defocus_blur", 1, ids=("a",), constants="imagenet")[0, :, :, 0]
    y, x = np.mgrid[-16:17, -16:17]
    inside = x**2 + y**2 <= 9
    assert inside.sum() == 29
    np.testing.assert_allclose(found[inside], 255 / 29, atol=1)
    assert not found[x**2 + y**2 > 20].any()
    assert disk(6, 0.5).sum() == pytest.approx(1, abs=1e-5)


def test_motion_goes_one_way_at_its_angle():
    point = POINT.astype(np.float32) / 255
    found = motion(point, 6, 2.0, np.array([0.0]))[0, :, :, 0]
    weights = np.exp(-(np.arange(13) ** 2) / 8)
    np.testing.assert_allclose(found[16, 16:3:-1], weights / weights.sum(), atol=1e-6)
    assert found.sum() == pytest.approx(1)
    upright = motion(point, 6, 2.0, np.array([90.0]))[0, :, :, 0]
    np.testing.assert_allclose(upright, found.T, atol=1e-6)


def test_zoom_enlarges_about_the_middle():
    ramp = np.tile(np.linspace(0, 1, 33, dtype=np.float32), (33, 1))[None, ..., None]
    found = zoomed(ramp, 1.25)
    # The middle stays, and the slope is that of 27 pixels over 34 places.
    assert found[0, 5, 16, 0] == pytest.approx(0.5, abs=0.02)
    slope = np.diff(found[0, 5, :, 0]).mean()
    assert slope == pytest.approx(26 / 33 / 32, rel=0.01)
    np.testing.assert_allclose(zoomed(ramp, 1.0), ramp, atol=1e-6)


def test_zoom_blur_leaves_what_is_even():
    even = np.full((1, 32, 32, 3), 100, np.uint8)
    np.testing.assert_array_equal(corrupt(even, "zoom_blur", 5, ids=("a",)), even)


def test_glass_moves_pixels_and_keeps_them(rng):
    given = rng.integers(0, 256, (1, 32, 32, 1), dtype=np.uint8)
    # With a blur of 0.05 pixels nothing but the swaps is left.
    found = corrupt(given, "glass_blur", 1, ids=("a",))
    np.testing.assert_array_equal(np.sort(found.ravel()), np.sort(given.ravel()))
    assert (found != given).mean() > 0.5
