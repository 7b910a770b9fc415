"""Image files made on the spot, one per format and mode."""

import io
import struct
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

Encode = Callable[..., bytes]


@pytest.fixture(scope="session")
def encode() -> Encode:
    """Return ``encode(array or Pillow image, format, **options)``, which gives the file."""

    def make(image, kind: str = "PNG", **options) -> bytes:
        if isinstance(image, np.ndarray):
            image = Image.fromarray(image)
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        return stream.getvalue()

    return make


@pytest.fixture
def colour(rng) -> np.ndarray:
    """13 x 17 pixels of random colour."""
    return rng.integers(0, 256, (13, 17, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def exif() -> Callable[..., bytes]:
    """Return ``exif(orientation, order)``, the TIFF block of an EXIF segment."""

    def make(orientation: int, order: str = "<") -> bytes:
        mark = {"<": b"II", ">": b"MM"}[order]
        head = mark + struct.pack(f"{order}HIH", 42, 8, 2)
        make_tag = struct.pack(f"{order}HHIHxx", 0x0111, 3, 1, 7)
        return head + make_tag + struct.pack(f"{order}HHIHxxI", 0x0112, 3, 1, orientation, 0)

    return make
