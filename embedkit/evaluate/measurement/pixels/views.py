"""Mild changes that leave an image what it is: views for what should not depend on them."""

import io
import zlib
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from embedkit.evaluate.measurement.pixels.warp import Floats, affine
from embedkit.types import Images

__all__ = ["VIEWS", "augmented", "per_image_rngs", "view"]

Rngs = list[np.random.Generator]
Change = Callable[[Floats, Rngs], Floats]


_GREY = np.array([0.299, 0.587, 0.114], np.float32)


def view(images: Images, name: str, *, ids: tuple[str, ...], seed: int = 0) -> Images:
    """Change each image in one way.

    Args:
        images: (n, h, w, c) uint8.
        name: One of ``VIEWS``.
        ids: Of the images: an image's change depends on its id, the name and the seed alone.
        seed: Root of the draws.
    """
    rngs = per_image_rngs(ids, name, seed)
    return _rounded(VIEWS[name](_shares(images), rngs))


def augmented(images: Images, *, ids: tuple[str, ...], seed: int = 0) -> Images:
    """One random view of each image: shifted, zoomed, flipped, lighter or darker.

    Weaker than what models are trained with, so that an image stays recognisable.
    """
    rngs = per_image_rngs(ids, "augmented", seed)
    pixels = _shares(images)
    turned = np.array([rng.random() < 0.5 for rng in rngs])
    pixels[turned] = pixels[turned, :, ::-1]
    for change in (_crop, _brightness, _contrast):
        pixels = change(pixels, rngs)
    return _rounded(pixels)


def per_image_rngs(ids: tuple[str, ...], name: str, seed: int) -> Rngs:
    """A generator per image that depends on nothing but its id, the name and the seed."""
    tag = zlib.crc32(name.encode())
    return [np.random.default_rng([seed, tag, zlib.crc32(key.encode())]) for key in ids]


def _shares(images: Images) -> Floats:
    return np.asarray(images, np.float32) / np.float32(255)


def _rounded(pixels: Floats) -> Images:
    return np.asarray(np.rint(pixels.clip(0, 1) * 255), np.uint8)


def _uniform(rngs: Rngs, low: float, high: float) -> npt.NDArray[np.float32]:
    return np.array([rng.uniform(low, high) for rng in rngs], np.float32)


def _maps(n: int) -> npt.NDArray[np.float32]:
    """The affine map that leaves everything where it is, n times."""
    return np.tile(np.eye(2, 3, dtype=np.float32), (n, 1, 1))


def _flip(pixels: Floats, rngs: Rngs) -> Floats:
    return np.asarray(pixels[:, :, ::-1])


def _shift(pixels: Floats, rngs: Rngs) -> Floats:
    height, width = pixels.shape[1:3]
    maps = _maps(len(rngs))
    maps[:, 0, 2] = np.rint(_uniform(rngs, -width / 8, width / 8))
    maps[:, 1, 2] = np.rint(_uniform(rngs, -height / 8, height / 8))
    return affine(pixels, maps)


def _crop(pixels: Floats, rngs: Rngs) -> Floats:
    """A window of 80 to 100 % of the sides, somewhere, at full size."""
    height, width = pixels.shape[1:3]
    share = _uniform(rngs, 0.8, 1.0)
    maps = _maps(len(rngs)) * share[:, np.newaxis, np.newaxis]
    maps[:, 0, 2] = _uniform(rngs, -0.5, 0.5) * (1 - share) * width
    maps[:, 1, 2] = _uniform(rngs, -0.5, 0.5) * (1 - share) * height
    return affine(pixels, maps)


def _rotate(pixels: Floats, rngs: Rngs) -> Floats:
    angle = np.deg2rad(_uniform(rngs, -15, 15))
    maps = _maps(len(rngs))
    maps[:, 0, 0] = maps[:, 1, 1] = np.cos(angle)
    maps[:, 0, 1], maps[:, 1, 0] = -np.sin(angle), np.sin(angle)
    return affine(pixels, maps)


def _brightness(pixels: Floats, rngs: Rngs) -> Floats:
    return (pixels * _uniform(rngs, 0.8, 1.2)[:, None, None, None]).clip(0, 1)


def _contrast(pixels: Floats, rngs: Rngs) -> Floats:
    mean = pixels.mean(axis=(1, 2, 3), keepdims=True)
    factor = _uniform(rngs, 0.8, 1.2)[:, None, None, None]
    return np.asarray((mean + (pixels - mean) * factor).clip(0, 1))


def _grey(pixels: Floats, rngs: Rngs) -> Floats:
    if pixels.shape[3] == 1:
        return pixels
    return np.repeat((pixels @ _GREY)[..., np.newaxis], 3, axis=3)


def _blur(pixels: Floats, rngs: Rngs) -> Floats:
    from scipy.ndimage import gaussian_filter

    sigma = max(pixels.shape[1:3]) / 64
    blurred: Floats = gaussian_filter(pixels, (0, sigma, sigma, 0), mode="nearest")
    return blurred


def _noise(pixels: Floats, rngs: Rngs) -> Floats:
    drawn = [rng.standard_normal(pixels.shape[1:], np.float32) for rng in rngs]
    return pixels + np.float32(0.03) * np.stack(drawn)


def _jpeg(pixels: Floats, rngs: Rngs) -> Floats:
    """Quality 75 and back."""
    from PIL import Image

    found = []
    for image in _rounded(pixels):
        buffer = io.BytesIO()
        Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(
            buffer, "JPEG", quality=75
        )
        found.append(np.asarray(Image.open(buffer)).reshape(image.shape))
    return _shares(np.stack(found))


VIEWS: Mapping[str, Change] = {
    "flip": _flip,
    "shift": _shift,
    "crop": _crop,
    "rotate": _rotate,
    "brightness": _brightness,
    "contrast": _contrast,
    "grey": _grey,
    "blur": _blur,
    "noise": _noise,
    "jpeg": _jpeg,
}
"""The changes by name: a left-right flip; a shift by up to an eighth; a window of at least 80 %
of the sides; up to 15 degrees; brightness and contrast by up to a fifth; grey; a blur of a
64th of the side; noise of 0.03; JPEG 75."""
