import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from embedkit.errors import InvalidInput
from embedkit.perturb.augmentations.blur import Blur


def _run(blur: Blur, pixels: np.ndarray, seed: int = 0) -> np.ndarray:
    return blur(torch.from_numpy(pixels), torch.Generator().manual_seed(seed)).numpy()


def _drawn_sigmas(blur: Blur, n: int, seed: int) -> np.ndarray:
    """Read from the response to a single bright pixel: neighbour over centre."""
    impulse = np.zeros((n, 1, 33, 33))
    impulse[:, :, 16, 16] = 1
    response = _run(blur, impulse, seed)[:, 0, 16]
    return np.sqrt(-0.5 / np.log(response[:, 17] / response[:, 16]))


@pytest.mark.parametrize("radius_px", [1, 3, 6])
@pytest.mark.parametrize("size", [(12, 20), (9, 9)])
def test_each_image_equals_scipys_filter_with_its_own_sigma(radius_px, size, rng):
    blur = Blur((0.4, 2.0), radius_px=radius_px, p=1.0)
    pixels = rng.random((10, 3, *size))
    blurred = _run(blur, pixels, seed=4)
    for image, result, sigma in zip(pixels, blurred, _drawn_sigmas(blur, 10, 4), strict=True):
        for channel in range(3):
            expected = ndimage.gaussian_filter(
                image[channel], sigma, mode="mirror", radius=radius_px
            )
            np.testing.assert_allclose(result[channel], expected, atol=1e-6)


def test_kernel_may_be_larger_than_the_image(rng):
    blur = Blur((1.5, 1.5), radius_px=11, p=1.0)
    pixels = rng.random((2, 1, 4, 3))
    expected = ndimage.gaussian_filter(pixels, (0, 0, 1.5, 1.5), mode="mirror", radius=11)
    np.testing.assert_allclose(_run(blur, pixels), expected, atol=1e-6)


def test_radius_defaults_to_three_sigma(rng):
    pixels = rng.random((2, 1, 16, 16))
    given = _run(Blur((1.2, 1.2), radius_px=math.ceil(3.6), p=1.0), pixels)
    np.testing.assert_array_equal(_run(Blur((1.2, 1.2), p=1.0), pixels), given)


def test_sigmas_fill_their_range():
    sigmas = _drawn_sigmas(Blur((0.5, 2.0), p=1.0), 500, 1)
    assert sigmas.min() == pytest.approx(0.5, abs=0.02)
    assert sigmas.max() == pytest.approx(2.0, abs=0.02)
    assert sigmas.mean() == pytest.approx(1.25, abs=0.08)


def test_images_left_out_stay_exactly_as_they_are(rng):
    pixels = rng.random((200, 1, 8, 8))
    blurred = _run(Blur((1.0, 2.0), p=0.5), pixels)
    same = (blurred == pixels).all(axis=(1, 2, 3))
    assert same.mean() == pytest.approx(0.5, abs=0.12)
    assert (np.abs(blurred - pixels).max(axis=(1, 2, 3))[~same] > 0.05).all()


def test_constant_images_stay_constant():
    blurred = _run(Blur(p=1.0), np.full((4, 3, 7, 5), 0.3))
    np.testing.assert_allclose(blurred, 0.3, atol=1e-12)


@pytest.mark.parametrize(
    "arguments",
    [{"radius_px": 0}, {"sigma_px": (-1.0, 1.0)}, {"sigma_px": (0.1, float("inf"))}],
)
def test_impossible_kernels_are_refused(arguments):
    with pytest.raises(InvalidInput, match=r"expected (radius_px|sigma_px)"):
        Blur(**arguments)
