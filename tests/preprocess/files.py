"""Image files made by hand, and what Pillow reads in them."""

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")


def png_chunk(name: bytes, body: bytes) -> bytes:
    return (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    )


def png(depth: int, colour_type: int, rows: list[bytes], width: int, *chunks: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour_type, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = (
        png_chunk(b"IHDR", header),
        *chunks,
        png_chunk(b"IDAT", body),
        png_chunk(b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def with_jpeg_segment(data: bytes, marker: int, body: bytes) -> bytes:
    return data[:2] + struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body + data[2:]


def pillow(data: bytes) -> np.ndarray:
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    return np.asarray(image.convert("RGB"))


def declares_png(width: int, height: int) -> bytes:
    return png(8, 2, [b"\0\0\0"], 1).replace(
        struct.pack(">II", 1, 1), struct.pack(">II", width, height), 1
    )


HUGE = {
    "PNG": declares_png(100_000, 100_000),
    "GIF": b"GIF89a" + struct.pack("<HHBBB", 65_000, 65_000, 0, 0, 0) + b"\x2c" + bytes(20),
    "BMP": b"BM"
    + bytes(12)
    + struct.pack("<IiiHHIIiiII", 40, 90_000, -90_000, 1, 24, *[0] * 6),
    "WebP": b"RIFF\x32\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(4) + b"\xff\xff\xff" * 2 + bytes(8),
    "JPEG": b"\xff\xd8\xff\xc0\0\x11\x08"
    + struct.pack(">HH", 65_000, 65_000)
    + bytes(10)
    + b"\xff\xda\0\0",
}
