"""Random fields: smooth, of the strength asked for, and different from place to place."""

import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.perturb.augmentations.random_field import RandomField


def changed(pixels, **arguments):
    values = {"shift": 0.0, "brightness": 0.0, "contrast": 0.0, **arguments}
    return RandomField(p=1.0, **values)(pixels, torch.Generator().manual_seed(1))


def test_brightness_is_a_field_of_the_given_strength():
    pixels = torch.full((50, 1, 32, 32), 0.5, dtype=torch.float64)
    factor = changed(pixels, brightness=0.1) / 0.5
    deviation = factor.std(dim=(2, 3))
    torch.testing.assert_close(deviation, torch.full_like(deviation, 0.1), rtol=0.01, atol=0)
    torch.testing.assert_close(factor.mean(dim=(2, 3)), torch.ones_like(deviation))


def test_the_spectrum_falls_as_it_should():
    """Mean power at twice the wave number is lower by 2 ** decay."""
    pixels = torch.full((400, 1, 32, 32), 0.5, dtype=torch.float64)
    field = changed(pixels, brightness=0.05, decay=4.0)
    power = torch.fft.fft2(field).abs().square().mean(dim=(0, 1))
    for k in (1, 2, 4):
        measured = (power[0, k] + power[k, 0]) / (power[0, 2 * k] + power[2 * k, 0])
        assert measured.item() == pytest.approx(2**4, rel=0.25)


def test_neighbours_are_changed_alike():
    pixels = torch.full((20, 1, 32, 32), 0.5)
    factor = changed(pixels, brightness=0.2) / 0.5
    assert factor.diff(dim=3).abs().mean() < 0.2 * factor.std()


def test_contrast_keeps_a_flat_image():
    pixels = torch.full((3, 3, 8, 8), 0.4)
    torch.testing.assert_close(changed(pixels, contrast=0.5), pixels)


def test_shifts_move_what_is_there_by_so_much():
    """On a ramp the change of a value is the displacement."""
    ramp = torch.linspace(0, 1, 64, dtype=torch.float64).expand(40, 1, 64, 64).contiguous()
    moved = changed(ramp, shift=0.02)
    inner = (moved - ramp)[:, :, 12:-12, 12:-12]
    assert inner.std().item() == pytest.approx(0.02, rel=0.25)


@pytest.mark.parametrize("values", [{"shift": -0.1}, {"decay": 0.0}, {"contrast": -1.0}])
def test_what_cannot_be_is_refused(values):
    with pytest.raises(InvalidInput, match="expected shift, brightness"):
        RandomField(**values)


@pytest.mark.parametrize("name", ["shift", "brightness", "contrast", "decay"])
def test_strengths_that_are_not_finite_are_refused(name):
    with pytest.raises(InvalidInput, match=f"expected a finite {name}, got nan"):
        RandomField(**{name: float("nan")})
