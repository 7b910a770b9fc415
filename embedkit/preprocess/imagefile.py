"""Image files become pixels of their own size."""

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from embedkit.errors import BadImage, InvalidInput, MissingDependency
from embedkit.preprocess.container import Container, read_container
from embedkit.preprocess.spec import InputSpec
from embedkit.types import Pixels

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

__all__ = ["MAX_PIXELS", "decode"]

MAX_PIXELS = 178_956_970 // 2
"""Default limit of a file's declared pixels: 256 MiB as RGB, where Pillow starts to warn."""

_DEFAULTS = InputSpec(1, 1, 3)

_UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: image[::-1].transpose(1, 0, 2),
    7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
    8: lambda image: image[:, ::-1].transpose(1, 0, 2),
}


def decode(
    data: bytes, spec: InputSpec | None = None, *, max_pixels: int = MAX_PIXELS
) -> Pixels:
    """Decode a JPEG, PNG, WebP, BMP or GIF file (its first frame), upright.

    Transparent pixels are laid over ``spec.alpha_background``; 16-bit grey is divided by
    ``spec.sixteen_bit_divisor`` and rounded (16-bit colour keeps its high byte); CMYK becomes
    RGB; EXIF rotation is applied. Colour profiles are ignored. Safe to call from many threads.

    Args:
        data: The whole file.
        spec: Whose background and divisor to use; the defaults of ``InputSpec`` if None.
            Size and channels are not applied: see ``convert``.
        max_pixels: Largest width x height, as declared by the header, that is decoded.

    Returns:
        (h, w, c) uint8 at the file's own size, c = 1 for grey files and 3 for all others.

    Raises:
        BadImage: If the bytes are no such file, are damaged or end early, or declare too many
            pixels; the message says what was found.
        MissingDependency: If Pillow is not installed.
    """
    if not isinstance(data, bytes):
        raise InvalidInput(f"expected an image file as bytes, got {type(data).__name__}")
    container = read_container(data)
    if container.width * container.height > max_pixels:
        raise BadImage(
            f"expected at most {max_pixels:,} pixels, got a {container.kind} header that "
            f"declares {container.width:,} x {container.height:,}"
        )
    spec = spec or _DEFAULTS
    opener = _opener(container.kind)
    try:
        with opener(io.BytesIO(container.data)) as image:
            _check_size(image, container)
            image.load()
            pixels = _pixels(image, container, spec)
    except Exception as error:
        # Pillow's plug-ins raise a dozen types on damaged files; all mean the same here.
        raise BadImage(
            f"expected a readable {container.kind} file, got {len(data):,} bytes that are "
            f"damaged or end early ({error})"
        ) from error
    return np.array(_UPRIGHT[container.orientation](pixels), order="C")


def _opener(kind: str) -> "Callable[[io.BytesIO], PillowImage]":
    """Pillow's reader of one format.

    The reader is called by itself rather than through ``Image.open``, which would try other
    formats and warn about sizes that are already checked.
    """
    try:
        from PIL import (
            BmpImagePlugin,
            GifImagePlugin,
            JpegImagePlugin,
            PngImagePlugin,
            WebPImagePlugin,
        )
    except ImportError:
        raise MissingDependency(
            f"expected Pillow to decode a {kind} file, got no such package; "
            "install it with: pip install 'embedkit[serve]'"
        ) from None
    openers: dict[str, Callable[[io.BytesIO], PillowImage]] = {
        "JPEG": JpegImagePlugin.JpegImageFile,
        "PNG": PngImagePlugin.PngImageFile,
        "WebP": WebPImagePlugin.WebPImageFile,
        "BMP": BmpImagePlugin.BmpImageFile,
        "GIF": GifImagePlugin.GifImageFile,
    }
    return openers[kind]


def _check_size(image: "PillowImage", container: Container) -> None:
    declared = (container.width, container.height)
    if image.size != declared:
        raise BadImage(f"two sizes, {declared} and {image.size}")


def _pixels(image: "PillowImage", container: Container, spec: InputSpec) -> Pixels:
    """8-bit grey or RGB of a loaded image, (h, w, 1 or 3), not yet upright."""
    if image.mode.startswith("I"):
        return _cut_out(_from_sixteen_bit(image, spec), np.asarray(image), container, spec)
    has_alpha = image.mode in {"LA", "RGBA", "PA"} or "transparency" in image.info
    is_grey = image.mode in {"1", "L", "LA"}
    if has_alpha:
        return _flatten(np.asarray(image.convert("LA" if is_grey else "RGBA")), spec)
    if image.mode == "CMYK" and not container.is_adobe:
        # Pillow takes every CMYK file for Adobe's, which stores 255 minus the ink.
        image = image.point(list(range(255, -1, -1)) * 4)
    target = "L" if is_grey else "RGB"
    pixels = np.atleast_3d(np.asarray(image if image.mode == target else image.convert(target)))
    return _cut_out(pixels, pixels[..., 0], container, spec)


def _from_sixteen_bit(image: "PillowImage", spec: InputSpec) -> Pixels:
    samples = np.asarray(image).astype(np.uint32)
    divisor = np.uint32(spec.sixteen_bit_divisor)
    grey: Pixels = np.minimum((samples + divisor // 2) // divisor, 255).astype(np.uint8)
    return grey[..., np.newaxis]


def _cut_out(
    pixels: Pixels, samples: npt.NDArray[np.generic], container: Container, spec: InputSpec
) -> Pixels:
    """Put the background where the samples of a grey file have its transparent level."""
    if container.transparent_grey is None:
        return pixels
    background = np.uint8(spec.alpha_background)
    is_clear = (samples == container.transparent_grey)[..., np.newaxis]
    return np.where(is_clear, background, pixels)


def _flatten(image: Pixels, spec: InputSpec) -> Pixels:
    """Lay colour over the background by its alpha, which is the last channel."""
    alpha = image[..., -1:].astype(np.uint32)
    colour = image[..., :-1] * alpha
    colour += (255 - alpha) * np.uint32(spec.alpha_background)
    flat: Pixels = ((colour + 127) // 255).astype(np.uint8)
    return flat
