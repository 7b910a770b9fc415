import json

import pytest

from embedkit.errors import InvalidInput
from embedkit.preprocess import InputSpec


def test_the_manifest_block_survives_json():
    spec = InputSpec(
        224,
        160,
        3,
        resize="shortest_side",
        crop="centre",
        interpolation="bicubic",
        grey_weights=(0.2, 0.5, 0.3),
        alpha_background=0,
        sixteen_bit_divisor=256,
    )
    assert InputSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_the_block_names_layout_and_type_that_the_wire_uses():
    block = InputSpec(8, 9, 1).to_dict()
    assert (block["height"], block["width"], block["channels"]) == (8, 9, 1)
    assert (block["layout"], block["dtype"]) == ("nhwc", "uint8")


def test_shape_is_height_width_channels():
    assert InputSpec(8, 9, 1).shape == (8, 9, 1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"height": 0}, "expected height to be an integer from 1 to 65535, got 0"),
        ({"width": 70_000}, "expected width"),
        ({"height": True}, "expected height"),
        ({"height": 8.0}, "expected height .* got 8.0"),
        ({"channels": 2}, "expected 1 channel \\(grey\\) or 3 \\(RGB\\), got 2"),
        ({"channels": 4}, "expected channels"),
        ({"alpha_background": 256}, "expected alpha_background"),
        ({"sixteen_bit_divisor": 0}, "expected sixteen_bit_divisor"),
        (
            {"resize": "squash"},
            "expected resize to be one of stretch, shortest_side, got 'squash'",
        ),
        ({"interpolation": "cubic"}, "expected interpolation"),
        ({"crop": "random"}, "expected crop"),
        ({"crop": "centre"}, "expected resize 'stretch' with crop 'none'"),
        ({"resize": "shortest_side"}, "got 'shortest_side' with 'none'"),
        ({"interpolation": "lanczos", "antialias": False}, "expected antialias with lanczos"),
        ({"antialias": "yes"}, "expected antialias to be true or false, got 'yes'"),
        ({"grey_weights": (0.5, 0.5)}, "expected grey_weights"),
        ({"grey_weights": (0.5, 0.5, 0.5)}, "expected grey_weights"),
        ({"grey_weights": (-0.5, 1.0, 0.5)}, "expected grey_weights"),
        ({"grey_weights": (float("nan"), 0.5, 0.5)}, "expected grey_weights"),
    ],
)
def test_a_value_out_of_range_is_refused(values, message):
    with pytest.raises(InvalidInput, match=message):
        InputSpec(**{"height": 8, "width": 8, "channels": 3, **values})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preprocess": None}, "expected an input block with 'preprocess'"),
        ({"layout": "nchw"}, "expected an input of layout nhwc and dtype uint8"),
        ({"dtype": "float32"}, "expected an input of layout nhwc and dtype uint8"),
        ({"height": None}, "expected height"),
    ],
)
def test_a_manifest_block_that_is_not_ours_is_refused(change, message):
    with pytest.raises(InvalidInput, match=message):
        InputSpec.from_dict({**InputSpec(8, 8, 3).to_dict(), **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sharpen": 1}, "expected the input keys .* got .*sharpen"),
        ({"grey_weights": "grey"}, "expected grey_weights to be a list of numbers, got 'grey'"),
        ({"grey_weights": [None, 1, 0]}, "expected grey_weights to be a list of numbers"),
        ({"resize": ["stretch"]}, "expected resize"),
    ],
)
def test_a_preprocess_block_that_is_not_ours_is_refused(change, message):
    block = InputSpec(8, 8, 3).to_dict()
    block["preprocess"] = {**block["preprocess"], **change}
    with pytest.raises(InvalidInput, match=message):
        InputSpec.from_dict(block)


def test_a_missing_preprocess_key_is_refused():
    block = InputSpec(8, 8, 3).to_dict()
    del block["preprocess"]["crop"]
    with pytest.raises(InvalidInput, match="expected the input keys"):
        InputSpec.from_dict(block)
