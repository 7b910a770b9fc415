"""Moments of the noises, from their definitions."""

import numpy as np
import pytest

from embedkit.evaluate.corruption import corrupt

GREY = np.full((8, 64, 64, 1), 128, np.uint8)
IDS = tuple("abcdefgh")
LEVEL = 128 / 255


def shares(name, severity, constants="cifar", level=128):
    given = np.full_like(GREY, level)
    return corrupt(given, name, severity, ids=IDS, constants=constants) / 255


@pytest.mark.parametrize(("severity", "sigma"), [(1, 0.04), (3, 0.08), (5, 0.10)])
def test_gaussian_noise(severity, sigma):
    found = shares("gaussian_noise", severity)
    assert found.std() == pytest.approx(sigma, rel=0.02)
    assert found.mean() == pytest.approx(LEVEL - 0.5 / 255, abs=0.002)


@pytest.mark.parametrize(("severity", "photons"), [(1, 500), (5, 50)])
def test_shot_noise_has_the_variance_of_poisson(severity, photons):
    found = shares("shot_noise", severity)
    assert found.var() == pytest.approx(LEVEL / photons, rel=0.04)


@pytest.mark.parametrize(("severity", "share"), [(1, 0.01), (5, 0.07)])
def test_impulse_noise_is_half_salt_and_half_pepper(severity, share):
    found = shares("impulse_noise", severity)
    assert np.mean(found != LEVEL) == pytest.approx(share, rel=0.08)
    assert np.mean(found == 1) == pytest.approx(share / 2, rel=0.15)
    assert np.mean(found == 0) == pytest.approx(share / 2, rel=0.15)


@pytest.mark.parametrize("level", [64, 128])
def test_speckle_noise_grows_with_brightness(level):
    found = shares("speckle_noise", 4, level=level)
    assert found.std() == pytest.approx(0.16 * level / 255, rel=0.03)
