import json

import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.perturb.augmentation import Pipeline, build_augmentation, preset, views


def _images(n=6, channels=3):
    return torch.rand(n, channels, 8, 8, generator=torch.Generator().manual_seed(0))


class Add:
    """Adds a constant: shows the order of steps."""

    def __init__(self, value):
        self.value = value

    def __call__(self, pixels, generator):
        return (pixels + self.value).clamp(0, 1)


class Uniform:
    """Gives random images, whatever comes in."""

    def __call__(self, pixels, generator):
        return torch.rand(pixels.shape, generator=generator)


def test_steps_run_in_order():
    pixels = torch.full((1, 1, 1, 1), 0.5)
    up_then_down = Pipeline((Add(0.75), Add(-0.25)))
    down_then_up = Pipeline((Add(-0.25), Add(0.75)))
    assert up_then_down(pixels, torch.Generator()).item() == 0.75
    assert down_then_up(pixels, torch.Generator()).item() == 1.0


def test_steps_share_one_stream_of_random_numbers():
    specs: list[dict[str, object]] = [{"name": "noise", "p": 1.0}, {"name": "geometric"}]
    whole = build_augmentation(specs)(_images(), torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(1)
    expected = build_augmentation(specs[:1])(_images(), generator)
    expected = build_augmentation(specs[1:])(expected, generator)
    assert torch.equal(whole, expected)


def test_empty_pipeline_copies():
    pixels = _images()
    copied = build_augmentation([])(pixels, torch.Generator())
    assert torch.equal(copied, pixels)
    assert copied.data_ptr() != pixels.data_ptr()


def test_lists_from_a_file_become_ranges():
    pipeline = build_augmentation(json.loads('[{"name": "geometric", "area": [0.5, 1]}]'))
    assert pipeline == build_augmentation([{"name": "geometric", "area": (0.5, 1.0)}])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"area": [0.2, 1.0]}, "expected an augmentation with 'name'"),
        ({"name": "color"}, "unknown augmentation 'color'; did you mean 'colour'"),
        (
            {"name": "colour", "brightnes": 0.4},
            "unknown argument of augmentation 'colour' 'brightnes'; did you mean 'brightness'",
        ),
        ({"name": "colour", "brightness": "strong"}, "expected brightness of augmentation"),
        ({"name": "geometric", "area": 0.5}, "expected area of augmentation 'geometric' as"),
        ({"name": "geometric", "padding": "wrap"}, "expected padding of augmentation"),
    ],
)
def test_wrong_specs_say_what_was_expected(spec, message):
    with pytest.raises(InvalidInput, match=message):
        build_augmentation([spec])


def test_views_are_independent_and_in_the_order_of_the_images():
    pixels = _images(4)
    stack = views(pixels, build_augmentation([]), 3, torch.Generator())
    assert stack.shape == (3, 4, 3, 8, 8)
    assert torch.equal(stack, pixels.expand(3, 4, 3, 8, 8))
    first, second = views(pixels, Uniform(), 2, torch.Generator().manual_seed(0))
    assert not torch.equal(first, second)


def test_views_need_at_least_one():
    with pytest.raises(InvalidInput, match="expected at least 1 view, got 0"):
        views(_images(), build_augmentation([]), 0, torch.Generator())


@pytest.mark.parametrize("name", ["simclr", "standard", "characters", "crop"])
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


def test_unknown_preset_is_refused():
    with pytest.raises(
        InvalidInput, match="expected the preset simclr, standard, characters or crop"
    ):
        preset("simclr2", 3, 32)
