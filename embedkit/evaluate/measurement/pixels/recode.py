"""Images through Pillow and back, and lines drawn on them."""

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from embedkit.evaluate.measurement.pixels.warp import Floats

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["as_jpeg", "stroke", "through_pillow"]

_REACH = 2.3


def through_pillow(pixels: Floats, change: "Callable[[Image], Image]") -> Floats:
    """Apply a change of 8-bit images to each image of a batch."""
    from PIL import Image

    found = []
    for image in np.asarray(np.rint(pixels.clip(0, 1) * 255), np.uint8):
        changed = change(Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image))
        found.append(np.asarray(changed).reshape(image.shape))
    return np.asarray(np.stack(found), np.float32) / np.float32(255)


def as_jpeg(image: "Image", quality: int) -> "Image":
    """Code as JPEG and decode again."""
    from PIL import Image

    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def stroke(
    start: tuple[float, float], end: tuple[float, float], height: int, width: int
) -> npt.NDArray[np.float32]:
    """A soft line between two points, (h, w), 0 to 1.

    Args:
        start: Column and row on a grid of 28 (MNIST's), whatever the size of the image.
        end: The same; its column is larger.
        height: Of the image.
        width: Of the image.
    """
    columns, rows = np.meshgrid(np.linspace(0, 27, width), np.linspace(0, 27, height))
    if end[0] == start[0]:
        return np.zeros((height, width), np.float32)
    slope = (end[1] - start[1]) / (end[0] - start[0])
    away = np.abs(rows - (slope * (columns - start[0]) + start[1])).clip(0, _REACH - 1e-10)
    line = (np.log(1 - away / _REACH) + 1).clip(0, 1)
    line[(columns < np.floor(start[0])) | (columns >= np.ceil(end[0]))] = 0
    return np.asarray(line, np.float32)
