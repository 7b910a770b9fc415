"""Pixels of any size and channel count become the model's."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput, MissingDependency
from embedkit.preprocess.spec import InputSpec
from embedkit.types import Pixels

if TYPE_CHECKING:
    from PIL import Image as PillowImage

__all__ = ["convert"]

_FIXED_POINT_BITS = 16


def convert(image: Pixels, spec: InputSpec) -> Pixels:
    """Bring one decoded image to the model's size and channels.

    Integer arithmetic throughout, so that the same pixels come out on every machine. Colour
    becomes grey by ``spec.grey_weights`` before resizing; grey becomes colour by repetition
    after it.

    Args:
        image: (h, w, c) uint8, any size, 1 or 3 channels.
        spec: What the model takes.

    Returns:
        (spec.height, spec.width, spec.channels) uint8; ``image`` itself, not a copy, where it
        already is that.

    Raises:
        InvalidInput: If ``image`` is not uint8 (h, w, 1 or 3) with at least one pixel.
        MissingDependency: If the size differs and Pillow is not installed.
    """
    _check(image)
    if image.shape == spec.shape:
        return image
    if image.shape[2] > spec.channels:
        image = _to_grey(image, spec.grey_weights)
    if image.shape[:2] != (spec.height, spec.width):
        image = _resize(image, spec)
    if image.shape[2] < spec.channels:
        image = np.repeat(image, spec.channels, axis=2)
    return image


def _check(image: Pixels) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        found = getattr(image, "dtype", type(image).__name__)
        raise InvalidInput(f"expected an image as a uint8 array, got {found}")
    if image.ndim != 3 or image.shape[2] not in (1, 3) or 0 in image.shape:
        raise InvalidInput(
            "expected an image of shape (height, width, 1 or 3) with at least one pixel, "
            f"got {image.shape}"
        )


def _to_grey(image: Pixels, weights: tuple[float, float, float]) -> Pixels:
    """Weighted sum of R, G, B in 16-bit fixed point, rounded; grey stays as it was."""
    one = 1 << _FIXED_POINT_BITS
    red, _, blue = (round(weight * one) for weight in weights)
    green = one - red - blue
    total = image[..., 0] * np.uint32(red)
    total += image[..., 1] * np.uint32(green)
    total += image[..., 2] * np.uint32(blue)
    total += np.uint32(one // 2)
    total >>= _FIXED_POINT_BITS
    return total.astype(np.uint8)[..., np.newaxis]


def _resize(image: Pixels, spec: InputSpec) -> Pixels:
    try:
        from PIL import Image
    except ImportError:
        raise MissingDependency(
            f"expected Pillow to resize {image.shape[:2]} pixels to "
            f"{(spec.height, spec.width)}, got no such package; "
            "install it with: pip install 'embedkit[serve]'"
        ) from None
    source = Image.fromarray(
        np.ascontiguousarray(image.squeeze(2) if image.shape[2] == 1 else image)
    )
    box = _source_box(image.shape[0], image.shape[1], spec)
    result = _resample(source, box, spec)
    pixels: npt.NDArray[np.uint8] = np.array(result)
    return pixels.reshape(spec.height, spec.width, image.shape[2])


def _source_box(height: int, width: int, spec: InputSpec) -> tuple[float, float, float, float]:
    """The part of the source, in source pixels, that becomes the whole target.

    For ``shortest_side`` this is the target's window in the whole resized image (its longer
    side truncated, the offset rounded, as is usual), mapped back to the source: the same
    samples without computing those that the crop would throw away.
    """
    if spec.resize == "stretch":
        return 0.0, 0.0, float(width), float(height)
    if spec.height * width >= spec.width * height:
        resized_height = spec.height
        resized_width = max(spec.width, spec.height * width // height)
    else:
        resized_width = spec.width
        resized_height = max(spec.height, spec.width * height // width)
    left = round((resized_width - spec.width) / 2)
    top = round((resized_height - spec.height) / 2)
    across, down = width / resized_width, height / resized_height
    return (
        left * across,
        top * down,
        min((left + spec.width) * across, float(width)),
        min((top + spec.height) * down, float(height)),
    )


def _resample(
    source: "PillowImage.Image", box: tuple[float, float, float, float], spec: InputSpec
) -> "PillowImage.Image":
    from PIL import Image

    size = (spec.width, spec.height)
    resampling = Image.Resampling[spec.interpolation.upper()]
    if spec.antialias:
        return source.resize(size, resampling, box=box)
    left, top, right, bottom = box
    across, down = (right - left) / spec.width, (bottom - top) / spec.height
    matrix = (across, 0.0, left, 0.0, down, top)
    return source.transform(size, Image.Transform.AFFINE, matrix, resampling)
