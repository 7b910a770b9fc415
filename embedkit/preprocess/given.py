"""Whatever a caller holds as images: arrays, files, paths, Pillow images, one or many.

Needs numpy alone until a file is decoded, so that a client without Pillow can use it.
"""

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from embedkit.errors import BadImage, InvalidInput, NotFound
from embedkit.preprocess.batch import prepare
from embedkit.preprocess.imagefile import decode
from embedkit.preprocess.pixels import convert
from embedkit.preprocess.spec import InputSpec
from embedkit.types import Images, Pixels

__all__ = ["ImageInput", "check_pixels", "count_images", "each_image", "prepared_batches"]

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


def each_image(images: ImageInput) -> Iterator[Pixels | bytes]:
    """Give every image as pixels (h, w, c) or as the content of a file, read when it is due.

    Raises:
        InvalidInput: If an image has the wrong type, dtype or shape, or cannot be read.
        NotFound: If a file does not exist.
    """
    items = [images] if _is_single(images) else images
    for index, item in enumerate(items):  # type: ignore[arg-type]
        yield _one(item, index)


def prepared_batches(images: ImageInput, spec: InputSpec, size: int) -> Iterator[Images]:
    """Give the images at a model's size, ``size`` at a time; only one batch is in memory.

    Raises:
        BadImage: If a file cannot be decoded; the message has its position.
        InvalidInput, NotFound: As ``each_image``.
    """
    if isinstance(images, np.ndarray) and images.ndim == 4:
        for start in range(0, len(images), size):
            yield prepare(images[start : start + size], spec)
        return
    batch: list[Pixels] = []
    for index, item in enumerate(each_image(images)):
        try:
            pixels = decode(item, spec) if isinstance(item, bytes) else item
            batch.append(convert(pixels, spec))
        except BadImage as error:
            raise BadImage(f"image {index}: {error}") from error
        if len(batch) == size:
            yield np.stack(batch)
            batch = []
    if batch:
        yield np.stack(batch)


def check_pixels(pixels: npt.NDArray[np.generic], shape: tuple[int, ...], what: str) -> None:
    """Refuse an array that is no image.

    Args:
        pixels: Any array.
        shape: Shape of one image in it.
        what: Its name in the message.

    Raises:
        InvalidInput: If it is not uint8 (h, w, 1 or 3).
    """
    if pixels.dtype != np.uint8:
        raise InvalidInput(
            f"expected {what} as uint8 from 0 to 255, got {pixels.dtype}; scale and round first"
        )
    if len(shape) != 3 or shape[2] not in (1, 3) or 0 in shape:
        raise InvalidInput(
            f"expected {what} as (n, h, w, c), (h, w, c) or (h, w) with 1 or 3 channels, got "
            f"shape {pixels.shape}; give grey images (n, h, w) a channel axis: x[..., None]"
        )


def _one(item: object, index: int) -> Pixels | bytes:
    if isinstance(item, np.ndarray):
        pixels = item[:, :, None] if item.ndim == 2 else item
        check_pixels(pixels, pixels.shape, f"image {index}")
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
    """Pixels of plain grey or RGB; anything else as a file, for ``decode`` to interpret."""
    exif = image.getexif()
    if image.mode in ("L", "RGB") and exif.get(_EXIF_ORIENTATION, 1) == 1:
        pixels = np.asarray(image)
        return pixels[:, :, None] if pixels.ndim == 2 else pixels
    plain = {"1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA"}
    buffer = io.BytesIO()
    # Encoded for the way to the decoder only, without loss: speed matters more than size.
    (image if image.mode in plain else image.convert("RGB")).save(buffer, "PNG", exif=exif)
    return buffer.getvalue()


_ONE_OF = (bytes, bytearray, memoryview, str, os.PathLike, PillowImage)


def _is_single(images: object) -> bool:
    if isinstance(images, np.ndarray):
        return images.ndim != 4
    return isinstance(images, _ONE_OF)
