"""Decoding with a verdict per image."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from embedkit.errors import BadImage
from embedkit.preprocess import InputSpec
from embedkit.serve.decode import Decoder

SPEC = InputSpec(4, 4, 3)


@pytest.fixture
def decoder():
    decoder = Decoder(2, max_pixels=10_000)
    yield decoder
    decoder.close()


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG file that declares a size and holds no pixels."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    header = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + header


@pytest.mark.parametrize("count", [1, 2, 17])
def test_pixels_come_back_in_order(decoder, rng, count):
    images = rng.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    decoded = decoder.decode([png(image) for image in images], SPEC)
    assert decoded.errors == {}
    np.testing.assert_array_equal(decoded.images, images)


def test_images_of_other_sizes_are_resized(decoder, rng):
    decoded = decoder.decode([png(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8))], SPEC)
    assert decoded.images.shape == (1, 4, 4, 3)


def test_bad_images_fail_alone_by_their_index(decoder, rng):
    good = rng.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    files = [b"", png(good[0]), b"no image", png(good[1]), png(good[0])[:50]]
    decoded = decoder.decode(files, SPEC)
    np.testing.assert_array_equal(decoded.images, good)
    assert sorted(decoded.errors) == [0, 2, 4]
    assert all(isinstance(e, BadImage) for e in decoded.errors.values())


def test_nothing_good_gives_an_empty_batch(decoder):
    decoded = decoder.decode([b"a", b"b"], SPEC)
    assert decoded.images.shape == (0, 4, 4, 3)
    assert sorted(decoded.errors) == [0, 1]


def test_too_many_declared_pixels_are_refused_before_decoding(decoder):
    decoded = decoder.decode([png_header(101, 100), png_header(60_000, 60_000)], SPEC)
    assert all("10000" in str(e).replace(",", "") for e in decoded.errors.values())
    assert sorted(decoded.errors) == [0, 1]


def test_a_fault_of_the_decoder_itself_stays_with_its_image(decoder, rng, monkeypatch, caplog):
    import embedkit.serve.decode as module

    original, images = module.decode, rng.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    files = [png(image) for image in images]

    def decode(data, spec, **kw):
        if data == files[0]:
            raise RuntimeError("no verdict")
        return original(data, spec, **kw)

    monkeypatch.setattr(module, "decode", decode)
    decoded = decoder.decode(files, SPEC)
    assert isinstance(decoded.errors[0], RuntimeError)
    np.testing.assert_array_equal(decoded.images, images[1:])
    assert "without a verdict" in caplog.text


def test_pixels_are_converted_only_where_they_must_be(decoder, rng):
    right = rng.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    assert decoder.convert(right, SPEC) is right
    assert decoder.convert(right[:, :3], SPEC).shape == (2, 4, 4, 3)
