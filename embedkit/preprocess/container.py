"""What an image file says of itself before any pixel is decoded.

The five formats are told apart by their first bytes, and size and orientation are read here, so
that a file which declares too many pixels is refused before a decoder sees it. JPEG and PNG are
also reduced to the parts that decide pixels: a decoder that never meets metadata cannot warn
about it, and cannot be attacked through it.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

from embedkit.errors import BadImage
from embedkit.preprocess.exif import read_orientation

__all__ = ["Container", "read_container"]

_Part = TypeVar("_Part")

_MAX_PARTS = 100_000
_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
)
# What people send by mistake, to be named in the message.
_OTHERS = (
    (b"II*\0", "a TIFF file"),
    (b"MM\0*", "a TIFF file"),
    (b"%PDF", "a PDF file"),
    (b"PK\x03\x04", "a zip file"),
    (b"\x1f\x8b", "a gzip file"),
    (b"\x93NUMPY", "a numpy array file"),
    (b"<svg", "an SVG drawing"),
    (b"<", "markup text"),
)
_JPEG_SIZE_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_WITHOUT_LENGTH = frozenset({0x00, 0x01, 0xFF, *range(0xD0, 0xDA)})
_JPEG_SCAN = 0xDA
# Every application segment and comment, except JFIF (E0) and Adobe (EE), which say how the
# colours are coded.
_JPEG_METADATA = frozenset({0xFE, *range(0xE1, 0xF0)}) - {0xEE}
_JPEG_DROPPED = _JPEG_METADATA | _JPEG_WITHOUT_LENGTH
_PNG_PIXEL_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_PNG_GREY = 0


@dataclass(frozen=True)
class Container:
    """An image file, known by its header.

    Attributes:
        kind: ``JPEG``, ``PNG``, ``WebP``, ``BMP`` or ``GIF``.
        width: Pixels, as the header declares them, before rotation.
        height: Pixels.
        data: The file, without metadata where that was taken out.
        orientation: EXIF orientation, 1 to 8; 1 is upright.
        is_adobe: Whether a JPEG has Adobe's marker, which means that CMYK is stored inverted.
        transparent_grey: Level of a grey PNG that is transparent, in the decoder's units
            (0 to 255, or 0 to 65,535 with 16 bits); None where there is none.
    """

    kind: str
    width: int
    height: int
    data: bytes
    orientation: int = 1
    is_adobe: bool = False
    transparent_grey: int | None = None


def read_container(data: bytes) -> Container:
    """Return format, declared size and orientation of an image file.

    Raises:
        BadImage: If the bytes are none of the five formats, or the header is incomplete.
    """
    if not data:
        raise BadImage("expected an image file, got 0 bytes")
    kind = _kind(data)
    try:
        container = _READERS[kind](data)
    except (struct.error, IndexError):
        raise BadImage(
            f"expected a whole {kind} header, got a file that ends after {len(data):,} bytes"
        ) from None
    if container.width < 1 or container.height < 1:
        raise BadImage(
            f"expected a {kind} file with at least one pixel, "
            f"got {container.width} x {container.height}"
        )
    return container


def _kind(data: bytes) -> str:
    for magic, kind in _MAGIC:
        if data.startswith(magic):
            return kind
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WebP"
    raise BadImage(f"expected a JPEG, PNG, WebP, BMP or GIF file, got {_describe(data)}")


def _describe(data: bytes) -> str:
    size = f"{len(data):,} bytes"
    for magic, name in _OTHERS:
        if data.lstrip()[:16].lower().startswith(magic.lower()):
            return f"{name} of {size}"
    if data[4:8] == b"ftyp":
        return f"an ISO media file ({data[8:12].decode('ascii', 'replace')}) of {size}"
    return f"{size} that start with {data[:8].hex(' ')}"


def _bounded(parts: Iterator[_Part], kind: str) -> Iterator[_Part]:
    """The parts of a file; a file of millions of empty ones would take minutes to walk."""
    for count, part in enumerate(parts):
        if count == _MAX_PARTS:
            raise BadImage(
                f"expected a {kind} file of at most {_MAX_PARTS:,} parts, got more than that"
            )
        yield part


def _read_jpeg(data: bytes) -> Container:
    kept, size, orientation, is_adobe = [data[:2]], (0, 0), None, False
    for marker, start, end in _bounded(_jpeg_segments(data), "JPEG"):
        if marker == _JPEG_SCAN:
            kept.append(data[start:])
            return Container("JPEG", *size, b"".join(kept), orientation or 1, is_adobe)
        if marker not in _JPEG_DROPPED:
            kept.append(data[start:end])
        body = data[start + 4 : end]
        if marker in _JPEG_SIZE_MARKERS:
            height, width = struct.unpack_from(">HH", body, 1)
            size = (width, height)
        elif marker == 0xE1 and body.startswith(b"Exif\0\0") and orientation is None:
            orientation = read_orientation(body[6:])
        elif marker == 0xEE and body.startswith(b"Adobe"):
            is_adobe = True
    raise IndexError("no scan")


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment up to the first scan."""
    start = 2
    while (start := data.find(b"\xff", start)) >= 0:  # decoders skip junk here as well
        marker, end = data[start + 1], start + 1
        if marker != _JPEG_SCAN and marker not in _JPEG_WITHOUT_LENGTH:
            (length,) = struct.unpack_from(">H", data, start + 2)
            end = start + 2 + length
        yield marker, start, end
        start = end


def _read_png(data: bytes) -> Container:
    width, height, depth, colour_type = struct.unpack_from(">IIBB", data, 16)
    kept, orientation, transparent = [data[:8]], None, None
    for name, start, end in _bounded(_png_chunks(data), "PNG"):
        body = data[start + 8 : end - 4]
        if name == b"eXIf" and orientation is None:
            orientation = read_orientation(body)
        elif name == b"tRNS" and colour_type == _PNG_GREY:
            transparent = _png_level(body, depth)
        elif name in _PNG_PIXEL_CHUNKS:
            kept.append(data[start:end])
    return Container(
        "PNG", width, height, b"".join(kept), orientation or 1, transparent_grey=transparent
    )


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of each chunk."""
    start = 8
    while start + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, start)
        end = start + 12 + length
        yield data[start + 4 : start + 8], start, end
        start = end


def _png_level(body: bytes, depth: int) -> int:
    """The level of a grey tRNS chunk; decoders spread 1, 2 and 4 bits over 0 to 255."""
    (level,) = struct.unpack_from(">H", body)
    if depth not in {1, 2, 4}:
        return int(level)
    most = (1 << depth) - 1
    return int(level & most) * 255 // most


def _read_gif(data: bytes) -> Container:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
    for end in _bounded(_gif_extensions(data, position), "GIF"):
        position = end
    if data[position] == 0x2C:
        # A frame may lie outside the screen; the decoder then enlarges the canvas.
        left, top, across, down = struct.unpack_from("<HHHH", data, position + 1)
        width, height = max(width, left + across), max(height, top + down)
    return Container("GIF", width, height, data)


def _gif_extensions(data: bytes, position: int) -> Iterator[int]:
    """Where each block of the extensions before the first frame ends."""
    while data[position] == 0x21:
        position += 2
        while data[position]:
            position += 1 + data[position]
            yield position
        position += 1
        yield position


def _read_bmp(data: bytes) -> Container:
    (header_bytes,) = struct.unpack_from("<I", data, 14)
    form, offset = ("<HH", 18) if header_bytes == 12 else ("<ii", 18)
    width, height = struct.unpack_from(form, data, offset)
    return Container("BMP", width, abs(height), data)


def _read_webp(data: bytes) -> Container:
    name = data[12:16]
    if name == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif name == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    return Container("WebP", width, height, data, _webp_orientation(data))


def _webp_orientation(data: bytes) -> int:
    for name, start, end in _bounded(_webp_chunks(data), "WebP"):
        if name == b"EXIF":
            return read_orientation(data[start + 8 : end].removeprefix(b"Exif\0\0"))
    return 1


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of each chunk."""
    start = 12
    while start + 8 <= len(data):
        (length,) = struct.unpack_from("<I", data, start + 4)
        yield data[start : start + 4], start, start + 8 + length
        start += 8 + length + (length & 1)


_READERS = {
    "JPEG": _read_jpeg,
    "PNG": _read_png,
    "GIF": _read_gif,
    "BMP": _read_bmp,
    "WebP": _read_webp,
}
