"""Whatever a caller holds as images becomes messages that the server accepts."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from embedkit.errors import MessageTooLarge
from embedkit.preprocess.given import ImageInput, check_pixels, count_images, each_image
from embedkit.types import EncodedImages, Images, Pixels

__all__ = ["Chunk", "ImageInput", "Room", "count_images", "cut_images"]


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


def cut_images(images: ImageInput, room: Room) -> Iterator[Chunk]:
    """Cut images into messages, in order; files are read when their message is made.

    Raises:
        InvalidInput: If an image has the wrong type, dtype or shape.
        MessageTooLarge: If one image alone does not fit a message.
        NotFound: If a file does not exist.
    """
    if isinstance(images, np.ndarray) and images.ndim == 4:
        check_pixels(images, images.shape[1:], "images")
        _check_fits(images[:1].nbytes, room, 0)
        step = room.rows(images[:1].nbytes)
        for start in range(0, len(images), step):
            yield Chunk(start, images[start : start + step])
        return
    yield from _grouped(each_image(images), room)


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
