"""Pixels between pixels: bilinear samples of a batch, and maps of where to take them."""

from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt

__all__ = ["Edge", "Floats", "affine", "grid", "sample"]

Floats = Annotated[npt.NDArray[np.float32], "n h w c"]
"""A batch of images as shares of full brightness, 0 to 1."""

Places = npt.NDArray[np.float32]
Edge = Literal["nearest", "reflect", "black"]


def grid(height: int, width: int) -> tuple[Places, Places]:
    """Row and column of every pixel, (h, w) each."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    return rows, columns


def affine(
    pixels: Floats,
    matrices: npt.NDArray[np.floating],
    *,
    edge: Edge = "nearest",
) -> Floats:
    """Move the pixels of each image by an affine map about the middle of the image.

    Args:
        pixels: (n, h, w, c).
        matrices: (n, 2, 3): from a place in the result to one in the image, both as (x, y)
            from the middle; the last column is a shift in pixels.
        edge: What lies beyond the image.
    """
    _, height, width, _ = pixels.shape
    rows, columns = grid(height, width)
    y, x = rows - (height - 1) / 2, columns - (width - 1) / 2
    m = matrices.astype(np.float32)[:, :, :, np.newaxis, np.newaxis]
    from_x = m[:, 0, 0] * x + m[:, 0, 1] * y + m[:, 0, 2] + np.float32((width - 1) / 2)
    from_y = m[:, 1, 0] * x + m[:, 1, 1] * y + m[:, 1, 2] + np.float32((height - 1) / 2)
    return sample(pixels, from_y, from_x, edge=edge)


def sample(pixels: Floats, rows: Places, columns: Places, *, edge: Edge = "nearest") -> Floats:
    """Bilinear samples of each image.

    Args:
        pixels: (n, h, w, c).
        rows: (n, h', w') place of each sample, in pixels from the top.
        columns: (n, h', w') from the left.
        edge: ``nearest`` repeats the border, ``reflect`` mirrors about it, ``black`` is 0.

    Returns:
        (n, h', w', c).
    """
    height, width = pixels.shape[1:3]
    top, left = np.floor(rows), np.floor(columns)
    below, right = (rows - top)[..., np.newaxis], (columns - left)[..., np.newaxis]
    first = np.arange(len(pixels))[:, np.newaxis, np.newaxis]

    def at(row: Places, column: Places) -> Floats:
        r, c = _within(row, height, edge), _within(column, width, edge)
        values: Floats = pixels[first, r, c]
        if edge == "black":
            outside = (row < 0) | (row >= height) | (column < 0) | (column >= width)
            values[outside] = 0
        return values

    upper = at(top, left) * (1 - right) + at(top, left + 1) * right
    lower = at(top + 1, left) * (1 - right) + at(top + 1, left + 1) * right
    return np.asarray(upper * (1 - below) + lower * below, np.float32)


def _within(places: Places, size: int, edge: Edge) -> npt.NDArray[np.int64]:
    whole = places.astype(np.int64)
    if edge != "reflect" or size == 1:
        return whole.clip(0, size - 1)
    # Mirrored about the outermost pixels, again and again: 2 1 0 1 2 1 0 ...
    period = 2 * (size - 1)
    turned = np.mod(whole, period)
    return np.asarray(np.minimum(turned, period - turned))
