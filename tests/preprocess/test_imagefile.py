import struct
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from embedkit.errors import BadImage, InvalidInput, MissingDependency
from embedkit.preprocess import InputSpec, decode
from tests.preprocess.files import FORMATS, HUGE, declares_png, pillow, png, png_chunk


@pytest.mark.parametrize("kind", FORMATS)
def test_a_colour_file_gives_what_pillow_gives(colour, encode, kind):
    data = encode(colour, kind)
    decoded = decode(data)
    assert decoded.shape == (13, 17, 3)
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, pillow(data))


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_a_lossless_file_gives_its_pixels_back(colour, encode, kind):
    np.testing.assert_array_equal(decode(encode(colour, kind)), colour)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP"])
def test_a_grey_file_has_one_channel(colour, encode, kind):
    data = encode(colour[..., 0], kind)
    assert decode(data).shape == (13, 17, 1)
    np.testing.assert_array_equal(np.repeat(decode(data), 3, 2), pillow(data))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF"])
def test_a_black_and_white_file_has_levels_0_and_255(rng, encode, kind):
    bits = rng.integers(0, 2, (6, 9), dtype=np.uint8) * 255
    decoded = decode(encode(Image.fromarray(bits).convert("1"), kind))
    np.testing.assert_array_equal(decoded[..., 0], bits)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF"])
def test_a_palette_file_gives_its_colours(encode, kind):
    image = Image.new("P", (2, 2))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1, 1, 0])
    expected = [[[10, 20, 30], [200, 100, 50]], [[200, 100, 50], [10, 20, 30]]]
    np.testing.assert_array_equal(decode(encode(image, kind)), expected)


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
@pytest.mark.parametrize("background", [255, 0, 90])
def test_transparent_palette_entries_show_the_background(encode, kind, background):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    data = encode(image, kind, transparency=1)
    spec = InputSpec(1, 2, 3, alpha_background=background)
    np.testing.assert_array_equal(decode(data, spec), [[[10, 20, 30], [background] * 3]])


def test_a_palette_with_half_transparent_entries_is_blended():
    palette = png_chunk(b"PLTE", bytes([10, 20, 30, 200, 100, 50]))
    alphas = png_chunk(b"tRNS", bytes([51, 255]))
    data = png(8, 3, [bytes([0, 1])], 2, palette, alphas)
    blended = [round(level * 0.2 + 255 * 0.8) for level in (10, 20, 30)]
    np.testing.assert_array_equal(decode(data), [[blended, [200, 100, 50]]])


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.parametrize("background", [255, 0, 128])
def test_alpha_is_laid_over_the_background(rng, encode, kind, background):
    image = rng.integers(0, 256, (6, 5, 4), dtype=np.uint8)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    share = image[..., 3:] / 255
    expected = np.floor(image[..., :3] * share + background * (1 - share) + 0.5)
    spec = InputSpec(1, 1, 3, alpha_background=background)
    decoded = decode(encode(image, kind, **options), spec)
    np.testing.assert_array_equal(decoded, expected.astype(np.uint8))


def test_grey_with_alpha_stays_grey(rng, encode):
    image = rng.integers(0, 256, (6, 5, 2), dtype=np.uint8)
    share = image[..., 1:] / 255
    expected = np.floor(image[..., :1] * share + 255 * (1 - share) + 0.5)
    np.testing.assert_array_equal(decode(encode(image)), expected.astype(np.uint8))


@pytest.mark.parametrize(
    ("depth", "rows", "expected"),
    [
        (1, [bytes([0b01000000])], [0, 9]),
        (2, [bytes([0b00010000])], [0, 9]),
        (4, [bytes([0x01])], [0, 9]),
        (8, [bytes([0, 1])], [0, 9]),
        (16, [bytes([0, 0, 0, 1])], [0, 9]),
    ],
)
def test_the_transparent_level_of_a_grey_png_shows_the_background(depth, rows, expected):
    data = png(depth, 0, rows, 2, png_chunk(b"tRNS", struct.pack(">H", 1)))
    spec = InputSpec(1, 2, 1, alpha_background=9)
    np.testing.assert_array_equal(decode(data, spec)[0, :, 0], expected)


def test_a_png_of_a_depth_that_does_not_exist_is_refused():
    data = png(0, 0, [b"\0"], 1, png_chunk(b"tRNS", b"\0\0"))
    with pytest.raises(BadImage, match="expected a readable PNG file"):
        decode(data)


def test_the_transparent_colour_of_a_png_shows_the_background():
    row = bytes([1, 2, 3, 4, 5, 6])
    data = png(8, 2, [row], 2, png_chunk(b"tRNS", struct.pack(">HHH", 4, 5, 6)))
    np.testing.assert_array_equal(decode(data), [[[1, 2, 3], [255, 255, 255]]])


@pytest.mark.parametrize("divisor", [257, 256, 255, 16])
def test_sixteen_bit_grey_is_divided_and_rounded(encode, divisor):
    samples = np.array([[0, 1, 128, 129, 255, 256, 32767, 65407, 65535]], dtype=np.uint16)
    decoded = decode(encode(samples), InputSpec(1, 9, 1, sixteen_bit_divisor=divisor))
    expected = np.minimum(np.floor(samples / divisor + 0.5), 255)
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded[..., 0], expected)


def test_sixteen_bit_colour_keeps_the_high_byte():
    data = png(16, 2, [bytes([1, 255, 2, 128, 3, 0])], 1)
    np.testing.assert_array_equal(decode(data), [[[1, 2, 3]]])


def test_cmyk_with_adobes_marker_is_stored_inverted(encode):
    ink = np.zeros((8, 8, 4), dtype=np.uint8)
    ink[..., 0] = 200  # cyan
    data = encode(_cmyk(ink), "JPEG", quality=100)
    assert b"Adobe" in data
    red, green, blue = decode(data)[4, 4]
    assert (abs(int(red) - 55), green > 250, blue > 250) == (0, True, True)


def _cmyk(ink: np.ndarray) -> Image.Image:
    return Image.merge("CMYK", [Image.fromarray(ink[..., plane]) for plane in range(4)])


def test_cmyk_without_adobes_marker_is_ink_as_it_is(encode):
    ink = np.zeros((8, 8, 4), dtype=np.uint8)
    ink[..., 0] = 200
    data = encode(_cmyk(255 - ink), "JPEG", quality=100)
    start = data.index(b"\xff\xee")
    (length,) = struct.unpack_from(">H", data, start + 2)
    plain = data[:start] + data[start + 2 + length :]
    assert b"Adobe" not in plain
    red, green, blue = decode(plain)[4, 4]
    assert (abs(int(red) - 55), green > 250, blue > 250) == (0, True, True)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(rng, encode, kind, orientation):
    image = Image.fromarray(rng.integers(0, 256, (16, 24, 3), dtype=np.uint8))
    tags = Image.Exif()
    tags[0x0112] = orientation
    data = encode(image, kind, exif=tags)
    decoded = decode(data)
    assert decoded.shape == ((16, 24, 3) if orientation < 5 else (24, 16, 3))
    assert decoded.flags.c_contiguous
    np.testing.assert_array_equal(decoded, pillow(data))


def test_a_gif_gives_its_first_frame(encode):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode(data), np.full((4, 4, 3), [255, 0, 0]))


def test_an_animated_png_gives_its_first_frame(encode):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encode(frames[0], "PNG", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode(data), np.full((4, 4, 3), [255, 0, 0]))


def test_an_animated_webp_gives_its_first_frame(encode):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    np.testing.assert_array_equal(decode(data), np.full((4, 4, 3), [255, 0, 0]))


def test_a_camera_file_with_two_pictures_gives_the_first(colour, encode):
    first = Image.fromarray(colour)
    data = encode(first, "MPO", save_all=True, append_images=[Image.new("RGB", (17, 13))])
    np.testing.assert_array_equal(decode(data), pillow(encode(first, "JPEG")))


@pytest.mark.parametrize("options", [{"quality": 80}, {"lossless": True}])
@pytest.mark.parametrize("has_alpha", [False, True])
def test_every_kind_of_webp_header_gives_its_size(rng, encode, options, has_alpha):
    image = rng.integers(0, 256, (11, 300, 4 if has_alpha else 3), dtype=np.uint8)
    data = encode(image, "WEBP", **options)
    assert decode(data).shape == (11, 300, 3)
    with pytest.raises(BadImage, match="declares 300 x 11"):
        decode(data, max_pixels=1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected an image file, got 0 bytes"),
        (b"hello, world", "got 12 bytes that start with 68 65 6c 6c 6f"),
        (b"II*\0" + bytes(8), "got a TIFF file of 12 bytes"),
        (b"%PDF-1.7", "got a PDF file"),
        (b"PK\x03\x04" + bytes(4), "got a zip file"),
        (b"\x93NUMPY\x01\0", "got a numpy array file"),
        (b"<!DOCTYPE html>", "got markup text"),
        (b"\n <SVG width='3'>", "got an SVG drawing"),
        (b"\0\0\0\x20ftypavif", r"got an ISO media file \(avif\)"),
        (
            b"\x89PNG\r\n\x1a\n",
            "expected a whole PNG header, got a file that ends after 8 bytes",
        ),
        (HUGE["JPEG"][:9], "expected a whole JPEG header"),
        (b"\xff\xd8\xff\xda\0\0", "expected a JPEG file with at least one pixel, got 0 x 0"),
        (declares_png(0, 5), "expected a PNG file with at least one pixel, got 0 x 5"),
        (b"\xff\xd8\xff\xfe\0\2junk", "expected a whole JPEG header"),
        (b"BM" + bytes(20), "expected a whole BMP header"),
        (b"GIF89a\1\0", "expected a whole GIF header"),
        (b"RIFF1234WEBPVP8 ", "expected a whole WebP header"),
    ],
)
def test_the_message_says_what_was_found(data, message):
    with pytest.raises(BadImage, match=message):
        decode(data)


@pytest.mark.parametrize("data", [None, "photo.jpg", np.zeros(3, np.uint8), bytearray(b"x")])
def test_anything_but_bytes_is_refused(data):
    with pytest.raises(InvalidInput, match="expected an image file as bytes, got"):
        decode(data)


def test_junk_between_the_segments_of_a_jpeg_is_skipped(colour, encode):
    data = encode(colour, "JPEG")
    expected = decode(data)
    end_of_first = 4 + struct.unpack_from(">H", data, 4)[0]
    junk = data[:end_of_first] + b"junk\xff\0\xff\xff" + data[end_of_first:]
    np.testing.assert_array_equal(decode(junk), expected)


def test_a_bitmap_of_the_oldest_kind_is_read():
    pixels = bytes([3, 2, 1, 6, 5, 4, 0, 0])
    header = struct.pack("<IHHHH", 12, 2, 1, 1, 24)
    data = b"BM" + struct.pack("<IHHI", 26 + len(pixels), 0, 0, 26) + header + pixels
    np.testing.assert_array_equal(decode(data), [[[1, 2, 3], [4, 5, 6]]])


def test_a_gif_with_extensions_before_its_frame_is_read(colour, encode):
    data = encode(colour, "GIF", comment=b"c" * 600, duration=3)
    assert decode(data).shape == (13, 17, 3)
    with pytest.raises(BadImage, match="declares 17 x 13"):
        decode(data, max_pixels=1)


def test_without_pillow_the_message_names_the_extra(colour, encode, monkeypatch):
    data = encode(colour)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingDependency, match=r"Pillow to decode a PNG.*embedkit\[serve\]"):
        decode(data)


def test_many_threads_give_the_same_pixels(rng, encode):
    files = [
        encode(rng.integers(0, 256, (40 + i, 50, 3), dtype=np.uint8), FORMATS[i % len(FORMATS)])
        for i in range(40)
    ]
    expected = [decode(data) for data in files]
    with ThreadPoolExecutor(8) as pool:
        for first, second in zip(pool.map(decode, files * 4), expected * 4, strict=True):
            np.testing.assert_array_equal(first, second)


def test_the_result_is_writable_and_the_callers_own(colour, encode):
    data = encode(colour)
    first = decode(data)
    first[:] = 0
    np.testing.assert_array_equal(decode(data), colour)
