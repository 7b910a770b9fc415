import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from embedkit.errors import InvalidInput, MissingDependency
from embedkit.preprocess import InputSpec, convert


def test_an_image_of_the_right_shape_is_returned_itself(colour):
    assert convert(colour, InputSpec(13, 17, 3)) is colour


def test_resizing_is_pillows(colour):
    expected = Image.fromarray(colour).resize((9, 8), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(convert(colour, InputSpec(8, 9, 3)), np.asarray(expected))


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_every_interpolation_is_pillows_of_that_name(colour, interpolation):
    expected = Image.fromarray(colour).resize((5, 6), Image.Resampling[interpolation.upper()])
    converted = convert(colour, InputSpec(6, 5, 3, interpolation=interpolation))
    np.testing.assert_array_equal(converted, np.asarray(expected))


def test_colour_becomes_grey_as_pillow_does_it(rng):
    image = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(image).convert("L"))
    np.testing.assert_array_equal(convert(image, InputSpec(64, 64, 1))[..., 0], expected)


@settings(deadline=None)
@given(
    level=st.integers(0, 255),
    weights=st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 1)),
)
def test_equal_channels_give_that_level_whatever_the_weights(level, weights):
    total = sum(weights)
    spec = InputSpec(1, 2, 1, grey_weights=tuple(weight / total for weight in weights))
    image = np.full((1, 2, 3), level, dtype=np.uint8)
    assert (convert(image, spec) == level).all()


def test_grey_weights_choose_the_channel(colour):
    blue = InputSpec(13, 17, 1, grey_weights=(0.0, 0.0, 1.0))
    np.testing.assert_array_equal(convert(colour, blue)[..., 0], colour[..., 2])


def test_grey_becomes_colour_by_repetition(colour):
    grey = colour[..., :1]
    converted = convert(grey, InputSpec(13, 17, 3))
    assert converted.shape == (13, 17, 3)
    for channel in range(3):
        np.testing.assert_array_equal(converted[..., channel], grey[..., 0])


def test_grey_resized_to_colour_equals_colour_of_equal_channels(colour):
    grey = colour[..., :1]
    spec = InputSpec(7, 5, 3)
    np.testing.assert_array_equal(convert(grey, spec), convert(np.repeat(grey, 3, 2), spec))


@pytest.mark.parametrize(("height", "width"), [(40, 60), (60, 40), (50, 50), (33, 97)])
def test_shortest_side_and_centre_crop_are_the_usual_two_steps(rng, height, width):
    image = np.kron(
        rng.integers(0, 256, (-(-height // 5), -(-width // 5), 3), dtype=np.uint8),
        np.ones((5, 5, 1), dtype=np.uint8),
    )[:height, :width]
    size = 24
    scaled = (
        (size, size * height // width) if width <= height else (size * width // height, size)
    )
    resized = Image.fromarray(image).resize(scaled, Image.Resampling.BILINEAR)
    left = round((scaled[0] - size) / 2)
    top = round((scaled[1] - size) / 2)
    expected = np.asarray(resized.crop((left, top, left + size, top + size))).astype(int)
    spec = InputSpec(size, size, 3, resize="shortest_side", crop="centre")
    # The two ways round filter weights differently: one level at most.
    assert np.abs(convert(image, spec).astype(int) - expected).max() <= 1


def test_centre_crop_ignores_what_lies_far_outside(rng):
    image = rng.integers(0, 256, (20, 100, 3), dtype=np.uint8)
    changed = image.copy()
    changed[:, :30] = 0
    changed[:, 70:] = 255
    spec = InputSpec(10, 10, 3, resize="shortest_side", crop="centre")
    np.testing.assert_array_equal(convert(image, spec), convert(changed, spec))


def test_an_extreme_aspect_ratio_does_not_make_an_enormous_intermediate(rng):
    image = rng.integers(0, 256, (1, 60_000, 3), dtype=np.uint8)
    spec = InputSpec(32, 32, 3, resize="shortest_side", crop="centre")
    assert convert(image, spec).shape == (32, 32, 3)


def test_without_antialias_shrinking_reads_single_points():
    stripes = np.zeros((64, 64, 1), dtype=np.uint8)
    stripes[:, ::8] = 255
    smooth = convert(stripes, InputSpec(8, 8, 1))
    sharp = convert(stripes, InputSpec(8, 8, 1, antialias=False))
    assert smooth.min() > 0  # every target pixel saw a stripe
    assert sharp.max() == 0  # the sampled points lie between the stripes


def test_without_antialias_enlarging_is_the_same_to_a_level(rng):
    image = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    with_it = convert(image, InputSpec(24, 24, 3)).astype(int)
    without = convert(image, InputSpec(24, 24, 3, antialias=False)).astype(int)
    assert np.abs(with_it - without).max() <= 1


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    channels=st.sampled_from([1, 3]),
    target=st.tuples(st.integers(1, 30), st.integers(1, 30), st.sampled_from([1, 3])),
    way=st.sampled_from([("stretch", "none"), ("shortest_side", "centre")]),
    antialias=st.booleans(),
)
def test_any_size_becomes_the_models_and_keeps_a_flat_level(
    height, width, channels, target, way, antialias
):
    spec = InputSpec(*target, resize=way[0], crop=way[1], antialias=antialias)
    converted = convert(np.full((height, width, channels), 77, dtype=np.uint8), spec)
    assert converted.shape == spec.shape
    assert converted.dtype == np.uint8
    assert (converted == 77).all()


def test_the_input_is_not_changed(colour):
    before = colour.copy()
    convert(colour, InputSpec(5, 5, 1))
    np.testing.assert_array_equal(colour, before)


def test_a_view_with_strides_gives_the_same_pixels(colour):
    spec = InputSpec(5, 5, 3)
    flipped = colour[:, ::-1]
    np.testing.assert_array_equal(convert(flipped, spec), convert(flipped.copy(), spec))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3)), "expected an image as a uint8 array, got float64"),
        ([[1, 2]], "expected an image as a uint8 array, got list"),
        (np.zeros((4, 4), np.uint8), "got \\(4, 4\\)"),
        (np.zeros((4, 4, 4), np.uint8), "got \\(4, 4, 4\\)"),
        (np.zeros((0, 4, 3), np.uint8), "at least one pixel"),
    ],
)
def test_what_is_no_image_is_refused(image, message):
    with pytest.raises(InvalidInput, match=message):
        convert(image, InputSpec(4, 4, 3))


def test_resizing_without_pillow_names_the_extra(colour, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingDependency, match=r"embedkit\[serve\]"):
        convert(colour, InputSpec(5, 5, 3))


def test_changing_channels_alone_needs_no_pillow(colour, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert convert(colour, InputSpec(13, 17, 1)).shape == (13, 17, 1)
