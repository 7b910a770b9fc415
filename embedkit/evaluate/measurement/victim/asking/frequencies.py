"""Orthonormal cosines of an image: the low frequencies that searches move along."""

from functools import cache

import numpy as np
import numpy.typing as npt

__all__ = ["combined", "cosines", "low_frequencies"]

Vectors = npt.NDArray[np.float32]


@cache
def _axis(size: int) -> npt.NDArray[np.float64]:
    """The orthonormal DCT-II basis of an axis, (frequencies, positions)."""
    positions = (np.arange(size) + 0.5) * np.pi / size
    waves = np.cos(np.arange(size)[:, None] * positions) * np.sqrt(2 / size)
    waves[0] = np.sqrt(1 / size)
    return np.asarray(waves, np.float64)


def low_frequencies(shape: tuple[int, ...], share: float) -> npt.NDArray[np.int64]:
    """Return the places, in C order, of the lowest ``share`` of each axis, at least one."""
    height, width, channels = shape
    places = np.arange(height * width * channels).reshape(height, width, channels)
    return places[: max(round(share * height), 1), : max(round(share * width), 1)].ravel()


def cosines(places: npt.NDArray[np.int64], shape: tuple[int, ...]) -> Vectors:
    """Return one cosine of unit length per place, (n, h, w, c); zero in the other channels."""
    height, width, channels = shape
    rows, columns, owners = np.unravel_index(places, shape)
    waves = _axis(height)[rows][:, :, None] * _axis(width)[columns][:, None, :]
    made = np.zeros((len(places), height, width, channels), np.float32)
    made[np.arange(len(places)), :, :, owners] = waves
    return made


def combined(weights: npt.NDArray[np.floating], size: tuple[int, int]) -> Vectors:
    """Return weighted sums of the lowest cosines, (n, h, w, c).

    Args:
        weights: (n, c, a, b): of frequencies below ``a`` down and ``b`` across, per channel.
        size: (h, w).
    """
    down, across = weights.shape[2:]
    # Stacks of small products: the rounding of an image does not depend on the others.
    made = _axis(size[0])[:down].T @ weights @ _axis(size[1])[:across]  # n c h w
    return np.asarray(made.transpose(0, 2, 3, 1), np.float32)
