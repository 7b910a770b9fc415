import numpy as np
import pytest
import torch
from scipy import stats

from embedkit.errors import InvalidInput
from embedkit.perturb.augmentations.noise import Noise


def _residuals(noise: Noise, n: int) -> np.ndarray:
    pixels = torch.full((n, 3, 16, 16), 0.5)
    changed = noise(pixels, torch.Generator().manual_seed(0))
    return (changed - pixels).numpy().reshape(n, -1)


def test_noise_is_normal_and_independent():
    residuals = _residuals(Noise(std=(0.05, 0.05), p=1.0), 20)
    assert stats.kstest(residuals.ravel() / 0.05, "norm").pvalue > 0.001
    assert residuals.mean() == pytest.approx(0, abs=0.002)
    correlation = np.corrcoef(residuals)
    assert np.abs(correlation - np.eye(20)).max() < 0.15


def test_strength_is_drawn_per_image():
    found = _residuals(Noise(std=(0.02, 0.1), p=1.0), 200).std(axis=1)
    assert found.min() == pytest.approx(0.02, abs=0.004)
    assert found.max() == pytest.approx(0.1, abs=0.006)
    assert found.mean() == pytest.approx(0.06, abs=0.006)


def test_images_left_out_stay_exactly_as_they_are():
    untouched = (_residuals(Noise(std=(0.1, 0.1), p=0.5), 200) == 0).all(axis=1)
    assert untouched.mean() == pytest.approx(0.5, abs=0.12)


def test_negative_strength_is_refused():
    with pytest.raises(InvalidInput, match="expected std"):
        Noise(std=(-0.1, 0.1))
