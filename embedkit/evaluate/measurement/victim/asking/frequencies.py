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


def combined(weights: Vectors, shape: tuple[int, ...]) -> Vectors:
    """Return weighted sums of the lowest cosines, (n, h, w, c).

    Args:
        weights: (n, a, b, c): of frequencies below ``a`` down and ``b`` across, per channel.
        shape: (h, w, c).
    """
    down, across = weights.shape[1:3]
    wide = np.tensordot(weights, _axis(shape[1])[:across], axes=(2, 0))  # n a c w
    made = np.tensordot(wide, _axis(shape[0])[:down], axes=(1, 0))  # n c w h
    return np.asarray(made.transpose(0, 3, 2, 1), np.float32)
