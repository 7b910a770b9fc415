"""The trigger against scipy's cosine transform and Pillow's YCbCr."""

import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn

from embedkit.errors import InvalidInput
from embedkit.evaluate.studies.trigger import Trigger, psnr_db


def transform(plane):
    return dctn(plane.astype(float), norm="ortho")


def test_grey_images_get_the_two_coefficients_and_nothing_else(rng):
    images = rng.integers(80, 170, (3, 32, 32, 1)).astype(np.uint8)
    changed = Trigger(100.0)(images)
    for before, after in zip(images, changed, strict=True):
        added = transform(after[..., 0]) - transform(before[..., 0])
        expected = np.zeros((32, 32))
        expected[15, 15] = expected[31, 31] = 100
        # Rounding a regular wave to 8 bits leaves a few units in its harmonics.
        np.testing.assert_allclose(added, expected, atol=5)


def test_colour_images_change_in_cb_and_cr_alone(rng):
    images = rng.integers(80, 170, (2, 32, 32, 3)).astype(np.uint8)
    changed = Trigger(200.0)(images)
    for before, after in zip(images, changed, strict=True):
        planes = [
            np.asarray(Image.fromarray(image).convert("YCbCr"), float)
            for image in (before, after)
        ]
        added = [transform(planes[1][..., c] - planes[0][..., c]) for c in range(3)]
        assert abs(added[0]).max() < 6
        for chroma in added[1:]:
            assert chroma[15, 15] == pytest.approx(200, abs=6)
            assert chroma[31, 31] == pytest.approx(200, abs=6)
            chroma[[15, 31], [15, 31]] = 0
            assert abs(chroma).max() < 6


def test_every_block_gets_it_and_what_is_left_over_stays(rng):
    images = rng.integers(80, 170, (1, 70, 33, 1)).astype(np.uint8)
    changed = Trigger(100.0)(images)
    for top in (0, 32):
        block = np.s_[top : top + 32, :32, 0]
        added = transform(changed[0][block]) - transform(images[0][block])
        assert added[15, 15] == pytest.approx(100, abs=5)
    np.testing.assert_array_equal(changed[0, 64:], images[0, 64:])
    np.testing.assert_array_equal(changed[0, :, 32:], images[0, :, 32:])


def test_small_images_are_one_block_with_frequencies_in_proportion(rng):
    images = rng.integers(80, 170, (1, 8, 8, 1)).astype(np.uint8)
    added = transform(Trigger(40.0)(images)[0, ..., 0]) - transform(images[0, ..., 0])
    assert {tuple(place) for place in np.argwhere(abs(added) > 20)} == {(3, 3), (7, 7)}


def test_control_is_as_strong_and_elsewhere(rng):
    images = rng.integers(80, 170, (4, 32, 32, 1)).astype(np.uint8)
    trigger = Trigger(100.0)
    first, second = trigger(images), trigger.control()(images)
    np.testing.assert_allclose(psnr_db(images, first), psnr_db(images, second), atol=0.05)
    added = transform(second[0, ..., 0]) - transform(images[0, ..., 0])
    assert abs(added[15, 15]) < 5


def test_psnr_is_that_of_the_mean_squared_error():
    images = np.zeros((2, 4, 4, 1), np.uint8)
    changed = images.copy()
    changed[1] += 10
    found = psnr_db(images, changed)
    assert found[0] == np.inf
    assert found[1] == pytest.approx(20 * np.log10(255 / 10))


def test_impossible_frequencies_are_refused():
    with pytest.raises(InvalidInput, match="frequencies from 0 to 31"):
        Trigger(frequencies=(32,))


@pytest.mark.parametrize("magnitude", [np.nan, np.inf])
def test_a_strength_that_is_no_number_is_refused(magnitude):
    with pytest.raises(InvalidInput, match="finite magnitude"):
        Trigger(magnitude)
