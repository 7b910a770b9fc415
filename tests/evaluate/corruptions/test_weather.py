"""Colours and textures of the weather."""

import colorsys

import numpy as np
import pytest

from embedkit.evaluate.corruption import corrupt
from embedkit.evaluate.measurement.pixels.filters import from_hsv, plasma, to_hsv


def test_colours_go_to_hsv_and_back(rng):
    rgb = rng.random((1, 6, 6, 3)).astype(np.float32)
    hue, saturation, value = to_hsv(rgb)
    for row in range(6):
        for column in range(6):
            h, s, v = colorsys.rgb_to_hsv(*map(float, rgb[0, row, column]))
            assert hue[0, row, column] / 6 == pytest.approx(h, abs=1e-5)
            assert saturation[0, row, column] == pytest.approx(s, abs=1e-5)
            assert value[0, row, column] == pytest.approx(v)
    np.testing.assert_allclose(from_hsv(hue, saturation, value, 3), rgb, atol=1e-5)


@pytest.mark.parametrize(("name", "severity"), [("brightness", 5), ("saturate", 4)])
def test_brightness_and_saturation_follow_colorsys(rng, name, severity):
    given = rng.integers(0, 256, (1, 5, 5, 3), dtype=np.uint8)
    found = corrupt(given, name, severity, ids=("a",))[0]
    for row, expected in zip(found.reshape(-1, 3), given.reshape(-1, 3), strict=True):
        h, s, v = colorsys.rgb_to_hsv(*(expected / 255))
        if name == "brightness":
            v = min(v + 0.3, 1)
        else:
            s = min(s * 2 + 0.1, 1)
        wanted = np.floor(np.array(colorsys.hsv_to_rgb(h, s, v)) * 255 + 1e-3)
        assert np.abs(row - wanted).max() <= 1


def test_clouds_fill_the_range_and_are_smoother_with_more_decay():
    rngs = [np.random.default_rng(i) for i in range(4)]
    rough, smooth = (plasma(rngs, 60, 40, decay) for decay in (1.5, 3.0))
    assert rough.shape == (4, 60, 40)
    assert rough.min() >= 0
    assert rough.max() <= 1
    step = [np.abs(np.diff(clouds, axis=1)).mean() for clouds in (rough, smooth)]
    assert step[0] > 1.7 * step[1]


def test_fog_brightens_the_dark_and_keeps_the_brightest_as_bound():
    given = np.zeros((2, 32, 32, 3), np.uint8)
    given[:, :16] = 200
    found = corrupt(given, "fog", 5, ids=("a", "b"))
    assert found[:, 16:].mean() > 20
    assert found.max() <= 200


def test_snow_and_frost_make_images_lighter():
    given = np.full((4, 32, 32, 3), 60, np.uint8)
    for name in ("snow", "frost"):
        assert corrupt(given, name, 5, ids=tuple("abcd")).mean() > 75


def test_mud_darkens_and_water_brightens():
    given = np.full((8, 64, 64, 3), 200, np.uint8)
    water, mud = (corrupt(given, "spatter", s, ids=tuple("abcdefgh")) for s in (3, 5))
    assert (water >= 200).all()
    assert (water > 200).any()
    assert (mud <= 200).all()
    covered = mud[(mud < 80).all(axis=3)]
    assert len(covered) > 50
    assert (covered[:, 0] >= covered[:, 2]).all()  # brown


def test_mud_on_a_grey_image_is_dark():
    given = np.full((4, 64, 64, 1), 200, np.uint8)
    assert corrupt(given, "spatter", 5, ids=tuple("abcd")).min() < 80
