"""Whatever a caller holds as images becomes messages that the server accepts."""

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput, MessageTooLarge, NotFound
from embedkit.types import EncodedImages, Images, Pixels

__all__ = ["Chunk", "ImageInput", "Room", "count_images", "cut_images"]

_EXIF_ORIENTATION = 0x0112


@runtime_checkable
class PillowImage(Protocol):
    """What is used of ``PIL.Image.Image``, so that Pillow need not be installed."""

    @property
    def mode(self) -> str:
        """Pillow's name of the pixel format."""
        ...

    def save(self, fp: io.BytesIO, format: str, *, exif: object) -> None:
        """Write a file."""
        ...

    def getexif(self) -> Mapping[int, object]:
        """The image's EXIF tags."""
        ...

    def convert(self, mode: str) -> "PillowImage":
        """The image in another mode."""
        ...


OneImage: TypeAlias = npt.NDArray[np.uint8] | bytes | str | os.PathLike[str] | PillowImage
ImageInput: TypeAlias = OneImage | Sequence[OneImage]
"""A uint8 array (n, h, w, c), or one or several of: uint8 array (h, w, c) or (h, w), content of
an image file as bytes, path of an image file, Pillow image."""


@dataclass(frozen=True)
class Room:
    """What one message may hold.

    Attributes:
        message_bytes: Bytes of images or vectors that the server accepts.
        images: Images or vectors that the server accepts.
        wanted_bytes: Bytes at which a message is sent off, so that several are in flight.
        wanted_images: Images at which a message is sent off.
    """

    message_bytes: int
    images: int
    wanted_bytes: int = 4 << 20
    wanted_images: int = 128

    def rows(self, row_bytes: int) -> int:
        """How many rows of one size go into a message; at least 1."""
        fitting = min(self.message_bytes, self.wanted_bytes) // max(1, row_bytes)
        return max(1, min(self.images, self.wanted_images, fitting))

    def beside(self, row_bytes: int) -> "Room":
        """The room left when each row comes with ``row_bytes`` of id and payload."""
        fitting = self.message_bytes // 2 // max(1, row_bytes)
        rows = max(1, min(self.images, self.wanted_images, fitting))
        return replace(
            self, message_bytes=max(1, self.message_bytes - rows * row_bytes), images=rows
        )

    def is_full(self, images: int, used_bytes: int, more_bytes: int) -> bool:
        """Whether a message should be sent off before ``more_bytes`` are added."""
        return images >= min(self.images, self.wanted_images) or (
            used_bytes + more_bytes > min(self.message_bytes, self.wanted_bytes)
        )


@dataclass(frozen=True)
class Chunk:
    """Consecutive images that go into one message.

    Attributes:
        start: Index of the first among all images of the call.
        images: uint8 (n, h, w, c), or files.
    """

    start: int
    images: Images | EncodedImages


def count_images(images: ImageInput) -> int:
    """Number of images; nothing is read.

    Raises:
        InvalidInput: If this is no form of images.
    """
    if isinstance(images, np.ndarray):
        return len(images) if images.ndim == 4 else 1
    if _is_single(images):
        return 1
    if isinstance(images, Sequence):
        return len(images)
    raise InvalidInput(
        "expected a uint8 array, bytes, a path, a Pillow image or a list of them, got "
        f"{type(images).__name__}"
    )


def cut_images(images: ImageInput, room: Room) -> Iterator[Chunk]:
    """Cut images into messages, in order; files are read when their message is made.

    Raises:
        InvalidInput: If an image has the wrong type, dtype or shape.
        MessageTooLarge: If one image alone does not fit a message.
        NotFound: If a file does not exist.
    """
    if isinstance(images, np.ndarray) and images.ndim == 4:
        _check_pixels(images, images.shape[1:], "images")
        _check_fits(images[:1].nbytes, room, 0)
        step = room.rows(images[:1].nbytes)
        for start in range(0, len(images), step):
            yield Chunk(start, images[start : start + step])
        return
    yield from _grouped(_each(images), room)


def _grouped(items: Iterator[Pixels | bytes], room: Room) -> Iterator[Chunk]:
    """Join consecutive files, or arrays of one shape, up to the room of a message."""
    group: list[Pixels | bytes] = []
    used = start = 0
    for index, item in enumerate(items):
        size = _size(item)
        _check_fits(size, room, index)
        if group and (room.is_full(len(group), used, size) or _form(item) != _form(group[0])):
            yield _chunk(start, group)
            group, used, start = [], 0, index
        group.append(item)
        used += size
    if group:
        yield _chunk(start, group)


def _chunk(start: int, group: list[Pixels | bytes]) -> Chunk:
    files = [item for item in group if isinstance(item, bytes)]
    arrays = [item for item in group if not isinstance(item, bytes)]
    return Chunk(start, files or np.stack(arrays))


def _each(images: ImageInput) -> Iterator[Pixels | bytes]:
    items = [images] if _is_single(images) else images
    for index, item in enumerate(items):  # type: ignore[arg-type]
        yield _one(item, index)


def _one(item: object, index: int) -> Pixels | bytes:
    if isinstance(item, np.ndarray):
        pixels = item[:, :, None] if item.ndim == 2 else item
        _check_pixels(pixels, pixels.shape, f"image {index}")
        return pixels
    if isinstance(item, bytes):
        return item
    if isinstance(item, bytearray | memoryview):
        return bytes(item)
    if isinstance(item, str | os.PathLike):
        return _read(Path(item), index)
    if isinstance(item, PillowImage):
        return _from_pillow(item)
    raise InvalidInput(
        f"expected image {index} as a uint8 array, bytes, a path or a Pillow image, got "
        f"{type(item).__name__}"
    )


def _read(path: Path, index: int) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise NotFound(f"expected image {index} at {path}, got no file") from error
    except OSError as error:
        raise InvalidInput(f"expected image {index} at {path}, got {error}") from error


def _from_pillow(image: PillowImage) -> Pixels | bytes:
    """Pixels of plain grey or RGB; anything else as a file, for the server to interpret."""
    exif = image.getexif()
    if image.mode in ("L", "RGB") and exif.get(_EXIF_ORIENTATION, 1) == 1:
        pixels = np.asarray(image)
        return pixels[:, :, None] if pixels.ndim == 2 else pixels
    plain = {"1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA"}
    buffer = io.BytesIO()
    # Encoded for the way to the server only, without loss: speed matters more than size.
    (image if image.mode in plain else image.convert("RGB")).save(buffer, "PNG", exif=exif)
    return buffer.getvalue()


_ONE_OF = (bytes, bytearray, memoryview, str, os.PathLike, PillowImage)


def _is_single(images: object) -> bool:
    if isinstance(images, np.ndarray):
        return images.ndim != 4
    return isinstance(images, _ONE_OF)


def _check_pixels(pixels: npt.NDArray[np.generic], shape: tuple[int, ...], what: str) -> None:
    if pixels.dtype != np.uint8:
        raise InvalidInput(
            f"expected {what} as uint8 from 0 to 255, got {pixels.dtype}; scale and round first"
        )
    if len(shape) != 3 or shape[2] not in (1, 3) or 0 in shape:
        raise InvalidInput(
            f"expected {what} as (n, h, w, c), (h, w, c) or (h, w) with 1 or 3 channels, got "
            f"shape {pixels.shape}; give grey images (n, h, w) a channel axis: x[..., None]"
        )


def _check_fits(size: int, room: Room, index: int) -> None:
    if size > room.message_bytes:
        raise MessageTooLarge(
            f"expected images of at most {room.message_bytes} bytes, got {size} (image {index})"
        )


def _size(item: Pixels | bytes) -> int:
    # A file costs a few bytes of framing.
    return len(item) + 8 if isinstance(item, bytes) else item.nbytes


def _form(item: Pixels | bytes) -> tuple[int, ...]:
    return () if isinstance(item, bytes) else item.shape
