"""Blurs, colours and textures of a batch of images that several corruptions share."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from embedkit.evaluate.measurement.pixels.warp import Floats, sample

__all__ = ["blurred", "disk", "from_hsv", "motion", "normals", "plasma", "to_hsv", "zoomed"]

Rngs = Sequence[np.random.Generator]
Planes = npt.NDArray[np.float32]
Planes64 = npt.NDArray[np.float64]


def normals(rngs: Rngs, shape: tuple[int, ...]) -> Planes:
    """Standard normal values, (n, *shape), each image's from its own generator."""
    return np.stack([rng.standard_normal(shape, np.float32) for rng in rngs])


def blurred(pixels: Floats, sigma: float) -> Floats:
    """Gaussian blur of each image, with the border repeated."""
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(pixels, (0, sigma, sigma, 0), mode="nearest"))


def disk(radius: float, softness: float) -> Planes:
    """The blur kernel of a lens out of focus: a disk with soft edges, of sum 1 or nearly so."""
    from scipy.ndimage import correlate

    reach, half = (8, 1) if radius <= 8 else (int(radius), 2)
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    hard = (rows**2 + columns**2 <= radius**2).astype(np.float64)
    ramp = np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * softness**2))
    ramp /= ramp.sum()
    return np.asarray(
        correlate(hard / hard.sum(), np.outer(ramp, ramp), mode="mirror"), np.float32
    )


def motion(
    pixels: Floats, radius: int, sigma: float, angles: npt.NDArray[np.floating]
) -> Floats:
    """Blur each image along a line: a one-sided Gaussian, as of a camera that comes to rest.

    Args:
        pixels: (n, h, w, c).
        radius: The line has ``2 * radius + 1`` pixels, or ends at the image's size.
        sigma: Of the Gaussian, in pixels.
        angles: (n,) in degrees.
    """
    height, width = pixels.shape[1:3]
    reach = 2 * radius + 1
    kernel = np.exp(-(np.arange(reach) ** 2) / (2 * sigma**2))
    kernel /= kernel.sum()
    turn = np.deg2rad(angles)
    rows, columns = np.arange(height), np.arange(width)
    first = np.arange(len(pixels))[:, np.newaxis, np.newaxis]
    total = np.zeros_like(pixels)
    for step in range(reach):
        down = -np.ceil(step * np.sin(turn) - 0.5).astype(int)
        right = -np.ceil(step * np.cos(turn) - 0.5).astype(int)
        inside = (np.abs(down) < height) & (np.abs(right) < width)
        if not inside.any():
            break
        r = (rows - down[:, np.newaxis]).clip(0, height - 1)[:, :, np.newaxis]
        c = (columns - right[:, np.newaxis]).clip(0, width - 1)[:, np.newaxis, :]
        weight = (kernel[step] * inside).astype(np.float32)[:, None, None, None]
        total += weight * pixels[first, r, c]
    return total


def zoomed(pixels: Floats, factor: float) -> Floats:
    """The middle of each image enlarged to the size of the whole."""
    height, width = pixels.shape[1:3]
    places = []
    for size in (height, width):
        window = int(np.ceil(size / factor))
        # The window at its new size is a little larger than the image: its middle is taken.
        large = max(round(window * factor), size)
        step = (window - 1) / max(large - 1, 1)
        start, cut = (size - window) // 2, (large - size) // 2
        places.append((start + step * (np.arange(size) + cut)).astype(np.float32))
    return sample(pixels, places[0][None, :, None], places[1][None, None, :])


def plasma(rngs: Rngs, height: int, width: int, decay: float) -> Planes:
    """Clouds by the diamond-square algorithm, (n, h, w), each from 0 to 1.

    Args:
        rngs: One per image.
        height: Of the images.
        width: Of the images; the clouds are made on the next power of 2 of the larger side.
        decay: How much weaker each finer scale is; above 1.
    """
    size = 1 << (max(height, width, 2) - 1).bit_length()
    maps = np.zeros((len(rngs), size, size))
    step, wobble = size, 100.0
    while step >= 2:
        half = step // 2

        def shaken(sums: npt.NDArray[np.float64], wobble: float = wobble) -> Planes64:
            shape = sums.shape[1:]
            drawn = np.stack([rng.uniform(-wobble, wobble, shape) for rng in rngs])
            return np.asarray(sums / 4 + wobble * drawn)

        corners = maps[:, ::step, ::step]
        sums = corners + np.roll(corners, -1, axis=1)
        maps[:, half::step, half::step] = shaken(sums + np.roll(sums, -1, axis=2))
        middle, corners = maps[:, half::step, half::step], maps[:, ::step, ::step]
        above = middle + np.roll(middle, 1, axis=1) + corners + np.roll(corners, -1, axis=2)
        maps[:, ::step, half::step] = shaken(above)
        left = middle + np.roll(middle, 1, axis=2) + corners + np.roll(corners, -1, axis=1)
        maps[:, half::step, ::step] = shaken(left)
        step, wobble = half, wobble / decay
    maps -= maps.min(axis=(1, 2), keepdims=True)
    maps /= np.maximum(maps.max(axis=(1, 2), keepdims=True), 1e-12)
    return maps[:, :height, :width].astype(np.float32)


def to_hsv(pixels: Floats) -> tuple[Planes, Planes, Planes]:
    """Hue (0 to 6), saturation and value of RGB or grey images, (n, h, w) each."""
    rgb = np.broadcast_to(pixels, (*pixels.shape[:3], 3))
    value, least = rgb.max(axis=3), rgb.min(axis=3)
    spread = value - least
    safe = np.where(spread > 0, spread, 1)
    red, green, blue = (rgb[..., c] for c in range(3))
    hue = np.select(
        [spread <= 0, value == red, value == green],
        [0 * value, ((green - blue) / safe) % 6, (blue - red) / safe + 2],
        (red - green) / safe + 4,
    )
    saturation = np.where(value > 0, spread / np.where(value > 0, value, 1), 0)
    return hue.astype(np.float32), saturation.astype(np.float32), value


def from_hsv(hue: Planes, saturation: Planes, value: Planes, channels: int) -> Floats:
    """RGB images, or with one channel the value weighted as luminance."""
    k = (np.array([5, 3, 1], np.float32) + hue[..., np.newaxis]) % 6
    ramp = np.minimum(k, 4 - k).clip(0, 1)
    rgb = value[..., None] - (value * saturation)[..., None] * ramp
    if channels == 3:
        return np.asarray(rgb, np.float32)
    grey = rgb @ np.array([0.2125, 0.7154, 0.0721], np.float32)
    return np.asarray(grey[..., np.newaxis], np.float32)
