import numpy as np
import pytest

from embedkit.errors import BadImage, InvalidInput
from embedkit.preprocess import InputSpec, convert, decode, prepare


def test_an_array_of_the_right_shape_is_returned_itself(rng):
    images = rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    assert prepare(images, InputSpec(8, 8, 3)) is images


def test_a_file_and_its_decoded_array_give_the_same_pixels(rng, encode):
    spec = InputSpec(8, 6, 1)
    images = rng.integers(0, 256, (3, 20, 30, 3), dtype=np.uint8)
    files = [encode(image) for image in images]
    np.testing.assert_array_equal(prepare(files, spec), prepare(images, spec))


def test_files_of_different_sizes_become_one_array(rng, encode):
    spec = InputSpec(8, 8, 3)
    files = [
        encode(rng.integers(0, 256, (h, w, 3), dtype=np.uint8), kind)
        for h, w, kind in ((5, 9, "PNG"), (20, 20, "JPEG"), (8, 8, "BMP"))
    ]
    prepared = prepare(files, spec)
    assert prepared.shape == (3, 8, 8, 3)
    for row, data in zip(prepared, files, strict=True):
        np.testing.assert_array_equal(row, convert(decode(data), spec))


def test_the_specs_background_reaches_the_decoder(encode):
    clear = encode(np.zeros((4, 4, 4), dtype=np.uint8))
    spec = InputSpec(4, 4, 3, alpha_background=7)
    assert (prepare([clear], spec) == 7).all()


def test_an_empty_batch_has_the_models_shape():
    assert prepare([], InputSpec(8, 9, 3)).shape == (0, 8, 9, 3)


def test_a_bad_file_is_named_by_its_position(encode):
    good = encode(np.zeros((4, 4, 3), dtype=np.uint8))
    with pytest.raises(BadImage, match="image 1 of 3: expected a JPEG, PNG"):
        prepare([good, b"no image at all", good], InputSpec(4, 4, 3))


def test_the_pixel_limit_reaches_the_decoder(encode):
    with pytest.raises(BadImage, match="expected at most 15 pixels"):
        prepare([encode(np.zeros((4, 4, 3), np.uint8))], InputSpec(4, 4, 3), max_pixels=15)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((4, 8, 8, 3), np.float32), "got float32 \\(4, 8, 8, 3\\)"),
        (np.zeros((8, 8, 3), np.uint8), "got uint8 \\(8, 8, 3\\)"),
        (np.zeros((1, 8, 8, 2), np.uint8), "got uint8 \\(1, 8, 8, 2\\)"),
        (b"one file", "got one bytes"),
        ("path.jpg", "got one str"),
        (7, "got one int"),
    ],
)
def test_what_is_no_batch_is_refused(images, message):
    with pytest.raises(InvalidInput, match=message):
        prepare(images, InputSpec(8, 8, 3))


def test_an_array_with_empty_images_is_refused():
    with pytest.raises(InvalidInput, match="at least one pixel"):
        prepare(np.zeros((2, 0, 8, 3), np.uint8), InputSpec(8, 8, 3))
