"""A batch of files or arrays becomes one array at the model's size."""

from collections.abc import Sequence

import numpy as np

from embedkit.errors import BadImage, InvalidInput
from embedkit.preprocess.imagefile import MAX_PIXELS, decode
from embedkit.preprocess.pixels import convert
from embedkit.preprocess.spec import InputSpec
from embedkit.types import EncodedImages, Images

__all__ = ["prepare"]


def prepare(
    images: Images | EncodedImages, spec: InputSpec, *, max_pixels: int = MAX_PIXELS
) -> Images:
    """Bring a batch to the model's size and channels.

    Args:
        images: (n, h, w, c) uint8 of any size with 1 or 3 channels, or image files.
        spec: What the model takes.
        max_pixels: Largest declared size of one file, in pixels.

    Returns:
        (n, spec.height, spec.width, spec.channels) uint8; ``images`` itself, not a copy, where
        it is an array that already has this shape.

    Raises:
        BadImage: If a file cannot be decoded; the message has its position in the batch.
        InvalidInput: If ``images`` is neither of the two.
    """
    if isinstance(images, np.ndarray):
        return _prepare_array(images, spec)
    if isinstance(images, bytes | str) or not isinstance(images, Sequence):
        raise InvalidInput(
            "expected a uint8 array (n, h, w, c) or a sequence of image files as bytes, got "
            f"one {type(images).__name__}"
        )
    prepared = np.empty((len(images), *spec.shape), dtype=np.uint8)
    for index, data in enumerate(images):
        try:
            prepared[index] = convert(decode(data, spec, max_pixels=max_pixels), spec)
        except BadImage as error:
            raise BadImage(f"image {index} of {len(images)}: {error}") from error
    return prepared


def _prepare_array(images: Images, spec: InputSpec) -> Images:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise InvalidInput(
            "expected images as a uint8 array of shape (n, height, width, 1 or 3), got "
            f"{images.dtype} {images.shape}"
        )
    if images.shape[1:] == spec.shape:
        return images
    prepared = np.empty((len(images), *spec.shape), dtype=np.uint8)
    for index, image in enumerate(images):
        prepared[index] = convert(image, spec)
    return prepared
