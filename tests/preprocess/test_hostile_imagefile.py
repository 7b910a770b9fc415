"""Damaged and hostile image files: an image or BadImage, soon, and nothing else."""

import struct
import sys
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from embedkit.errors import BadImage
from embedkit.preprocess import MAX_PIXELS, decode
from tests.preprocess.files import (
    FORMATS,
    HUGE,
    declares_png,
    png_chunk,
    with_jpeg_segment,
)


@pytest.mark.parametrize(
    "body",
    [
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0no TIFF block",
        b"Exif\0\0",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x1a\x01\x05\0\xff\xff\xff\xff\xff\xff\xff\xff",
    ],
)
def test_damaged_exif_neither_warns_nor_hides_the_picture(colour, encode, body):
    data = encode(colour, "JPEG")
    expected = decode(data)
    np.testing.assert_array_equal(decode(with_jpeg_segment(data, 0xE1, body)), expected)


def test_a_damaged_multi_picture_index_neither_warns_nor_hides_the_picture(colour, encode):
    data = encode(colour, "JPEG")
    damaged = with_jpeg_segment(data, 0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff")
    np.testing.assert_array_equal(decode(damaged), decode(data))


def test_a_damaged_animation_header_neither_warns_nor_hides_the_picture(colour, encode):
    data = encode(colour, "PNG")
    damaged = data[:33] + png_chunk(b"acTL", bytes(8)) + data[33:]
    np.testing.assert_array_equal(decode(damaged), colour)


def test_text_in_a_png_that_unpacks_to_too_much_is_never_unpacked(colour, encode):
    data = encode(colour, "PNG")
    bomb = png_chunk(b"zTXt", b"bomb\0\0" + zlib.compress(bytes(200_000_000), 9))
    np.testing.assert_array_equal(decode(data[:33] + bomb + data[33:]), colour)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_truncated_file_is_refused(rng, encode, kind):
    data = encode(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8), kind)
    for share in (0.02, 0.1, 0.5, 0.9):
        with pytest.raises(BadImage, match=r"ends? (early|after)"):
            decode(data[: int(len(data) * share)])


@pytest.mark.parametrize("kind", FORMATS)
def test_every_prefix_of_a_file_is_refused_or_whole(colour, encode, kind):
    data = encode(colour, kind)
    expected = decode(data)
    for length in range(len(data)):
        try:
            decoded = decode(data[:length])
        except BadImage:
            continue
        # Only bytes that no pixel depends on may be missing, such as an end marker.
        assert length >= len(data) - 20
        np.testing.assert_array_equal(decoded, expected)


@pytest.fixture(scope="module")
def originals(encode):
    image = np.random.default_rng(0).integers(0, 256, (12, 10, 4), dtype=np.uint8)
    files = [encode(image[..., :3], kind) for kind in FORMATS]
    return [
        *files,
        encode(image),
        encode(image, "WEBP"),
        encode(Image.fromarray(image).convert("P")),
    ]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_damaged_bytes_give_an_image_or_bad_image_and_nothing_else(originals, data):
    file = bytearray(data.draw(st.sampled_from(originals)))
    for _ in range(data.draw(st.integers(1, 6))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode(bytes(file), max_pixels=100_000)
    except BadImage:
        return
    assert decoded.dtype == np.uint8
    assert decoded.ndim == 3
    assert decoded.shape[2] in (1, 3)
    assert decoded.size > 0


@settings(max_examples=100, deadline=None)
@given(
    st.binary(max_size=64),
    st.sampled_from(
        [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"RIFF1234WEBP"]
    ),
)
def test_random_bytes_are_refused(tail, magic):
    with pytest.raises(BadImage):
        decode(magic + tail)


@pytest.mark.parametrize("kind", HUGE)
def test_a_header_that_declares_too_many_pixels_is_refused_before_decoding(kind, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)  # a decoder could not even be imported
    with pytest.raises(BadImage, match=f"at most {MAX_PIXELS:,} pixels, got a {kind} header"):
        decode(HUGE[kind])


@pytest.mark.parametrize("kind", FORMATS)
def test_the_limit_is_inclusive(colour, encode, kind):
    data = encode(colour, kind)
    assert decode(data, max_pixels=13 * 17).shape == (13, 17, 3)
    with pytest.raises(BadImage, match=r"got a .* header that declares 17 x 13"):
        decode(data, max_pixels=13 * 17 - 1)


def test_a_gif_frame_outside_its_screen_counts(encode):
    data = bytearray(encode(Image.new("P", (4, 4)), "GIF"))
    at = data.index(b"\x2c\0\0\0\0\4\0\4\0")
    data[at : at + 9] = b"\x2c" + struct.pack("<HHHH", 60_000, 60_000, 4, 4)
    with pytest.raises(BadImage, match=r"declares 60,004 x 60,004"):
        decode(bytes(data))


def test_a_file_with_two_sizes_is_refused(encode):
    header = struct.pack(">IIBBBBB", 900, 900, 8, 2, 0, 0, 0)
    data = encode(np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(BadImage, match=r"two sizes"):
        decode(data[:33] + png_chunk(b"IHDR", header) + data[33:], max_pixels=100)


MANY = 3_000_000


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("JPEG", b"\xff\xd8" + b"\xff" * MANY),
        ("JPEG", b"\xff\xd8\xff" + b"\xfe\0\2\xff" * MANY),
        ("PNG", declares_png(4, 4)[:33] + bytes(12) * MANY),
        ("GIF", b"GIF89a" + bytes(7) + b"\x21\xfe" + b"\1x" * MANY),
        ("GIF", b"GIF89a" + bytes(7) + b"\x21\xfe\0" * MANY),
        ("WebP", HUGE["WebP"][:12] + b"VP8L" + bytes(14) + bytes(8) * MANY),
    ],
)
def test_a_file_of_millions_of_empty_parts_is_refused_soon(kind, data):
    with pytest.raises(BadImage, match=f"expected a {kind} file of at most 100,000 parts"):
        decode(data)
