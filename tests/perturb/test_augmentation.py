import json

import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.perturb.augmentation import Pipeline, build_augmentation, views


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
