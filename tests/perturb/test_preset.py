"""Presets: what the papers say, for images of every size."""

import json

import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.perturb.augmentation import build_augmentation
from embedkit.perturb.preset import preset, presets


@pytest.mark.parametrize("name", presets.names())
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("image_px", [8, 28, 32, 96, 224])
def test_presets_can_be_built_run_and_written_to_a_file(name, channels, image_px):
    specs = preset(name, channels, image_px)
    assert json.loads(json.dumps(specs)) == specs
    pixels = torch.rand(2, channels, image_px, image_px, generator=torch.Generator())
    changed = build_augmentation(specs)(pixels, torch.Generator().manual_seed(0))
    assert changed.shape == pixels.shape
    assert not torch.equal(changed, pixels)


def test_simclr_preset_follows_the_paper():
    geometric, colour, blur = preset("simclr", 3, 224)
    assert (geometric["name"], geometric["area"]) == ("geometric", [0.08, 1.0])
    assert colour == {
        "name": "colour",
        "p": 0.8,
        "brightness": 0.8,
        "contrast": 0.8,
        "saturation": 0.8,
        "hue": 0.2,
        "greyscale": 0.2,
    }
    # A kernel of a tenth of the image: 22.4 px, here 2 * 11 + 1.
    assert (blur["radius_px"], blur["sigma_px"], blur["p"]) == (11, [0.1, 2.0], 0.5)
    small = preset("simclr", 3, 32)
    assert [step["name"] for step in small] == ["geometric", "colour"]
    assert (small[1]["brightness"], small[1]["hue"], small[1]["greyscale"]) == (0.4, 0.1, 0.2)
    assert "hue" not in preset("simclr", 1, 32)[1]


def test_characters_preset_never_mirrors():
    assert preset("characters", 1, 8)[0]["flip"] == 0.0


def test_crop_preset_moves_a_window_of_one_size():
    """On a ramp the window is a shorter ramp: its slope is the zoom, its start the place."""
    ramp = torch.linspace(0, 1, 64, dtype=torch.float64).expand(50, 1, 64, 64)
    pipeline = build_augmentation(preset("crop", 1, 64))
    cropped = pipeline(ramp.contiguous(), torch.Generator().manual_seed(0))
    steps = cropped[:, 0, :, 40] - cropped[:, 0, :, 20]
    torch.testing.assert_close(steps, torch.full_like(steps, 20 / 63 * 224 / 256))
    starts = cropped[:, 0, 32, 32]
    assert starts.std() > 0.02


def test_every_preset_is_registered_under_its_files_name():
    assert presets.names() == ("characters", "crop", "simclr", "standard")
    for name in presets.names():
        assert presets.get(name).__module__ == f"embedkit.perturb.presets.{name}"
        assert presets.summary(name).endswith(".")


def test_unknown_preset_is_refused():
    with pytest.raises(InvalidInput, match="unknown preset 'simclr2'; did you mean 'simclr'"):
        preset("simclr2", 3, 32)
