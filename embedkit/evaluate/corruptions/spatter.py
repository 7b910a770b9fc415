"""Drops of water or mud on the lens."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from embedkit.evaluate.corruption import Rngs, Strength, corruptions
from embedkit.evaluate.measurement.pixels.filters import blurred, normals
from embedkit.evaluate.measurement.pixels.warp import Floats

__all__ = ["Spatter"]


@corruptions.register("spatter")
@dataclass(frozen=True)
class Spatter:
    """Adds drops: water at the lower severities, mud at the higher ones.

    Strength: mean and spread of the liquid, its smoothness, the least that shows, its weight or
    the smoothness of mud, and whether it is mud. The light on water drops is worked out from
    the distance to their edges, as published, but with an exact distance and plain edges.
    """

    cifar: ClassVar[tuple[Strength, ...]] = (
        (0.62, 0.1, 0.7, 0.7, 0.5, 0),
        (0.65, 0.1, 0.8, 0.7, 0.5, 0),
        (0.65, 0.3, 1, 0.69, 0.5, 0),
        (0.65, 0.1, 0.7, 0.69, 0.6, 1),
        (0.65, 0.1, 0.5, 0.68, 0.6, 1),
    )
    imagenet: ClassVar[tuple[Strength, ...]] = (
        (0.65, 0.3, 4, 0.69, 0.6, 0),
        (0.65, 0.3, 3, 0.68, 0.6, 0),
        (0.65, 0.3, 2, 0.68, 0.5, 0),
        (0.65, 0.3, 1, 0.65, 1.5, 1),
        (0.67, 0.4, 1, 0.65, 1.5, 1),
    )

    def __call__(self, pixels: Floats, strength: Strength, rngs: Rngs) -> Floats:
        """Corrupt a batch."""
        mean, spread, sigma, least, amount, mud = strength
        drawn = mean + spread * normals(rngs, (*pixels.shape[1:3], 1))
        liquid = blurred(drawn.astype(np.float32), sigma)
        liquid[liquid < least] = 0
        if mud:
            cover = blurred((liquid > least).astype(np.float32), amount)
            cover[cover < 0.8] = 0
            dry = pixels * (1 - cover)
            return np.asarray(dry + _colour(_MUD, pixels) * cover, np.float32)
        relief = np.stack([_relief(image[..., 0]) for image in liquid])[..., np.newaxis]
        return np.asarray(pixels + amount * relief * _colour(_WATER, pixels), np.float32)


_WATER = np.array([0.686, 0.933, 0.933], np.float32)
_MUD = np.array([0.247, 0.165, 0.078], np.float32)
_EMBOSS = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], np.float64)
_DEEPEST = 20


def _colour(rgb: npt.NDArray[np.float32], pixels: Floats) -> npt.NDArray[np.float32]:
    """The colour, or its brightness for a grey image."""
    return rgb if pixels.shape[3] == 3 else rgb.mean(keepdims=True)


def _relief(liquid: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Light on drops, (h, w), at most 1."""
    from scipy.ndimage import binary_erosion, convolve, distance_transform_edt, uniform_filter

    wet = liquid > 0
    edges = wet & ~binary_erosion(wet)
    if not edges.any():
        return np.zeros_like(liquid)
    depth = np.minimum(distance_transform_edt(~edges), _DEEPEST)
    depth = np.floor(uniform_filter(depth, 3))
    # Equalised: each depth becomes the share of pixels that are less deep.
    values, places, counts = np.unique(depth, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - counts[0]
    levels = 255 * ranks / max(int(ranks[-1]), 1) if len(values) > 1 else np.zeros(1)
    flat = levels[places].reshape(depth.shape)
    light = uniform_filter(convolve(flat, _EMBOSS[::-1, ::-1]).clip(0, 255), 3)
    shown = liquid * light
    return np.asarray(shown / max(float(shown.max()), 1e-12), np.float32)
