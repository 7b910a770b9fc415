"""Distortion, as through water."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from embedkit.evaluate.corruption import Rngs, Strength, corruptions
from embedkit.evaluate.measurement.pixels.warp import Floats, affine, grid, sample

__all__ = ["ElasticTransform"]


@corruptions.register("elastic_transform")
@dataclass(frozen=True)
class ElasticTransform:
    """Stretches by a random affine map and moves pixels along smooth random paths.

    Strength, as shares of the smaller side: reach and smoothness of the paths, and how far the
    corners of a triangle in the middle move.
    """

    cifar: ClassVar[tuple[Strength, ...]] = (
        (0, 0, 0.08),
        (0.05, 0.2, 0.07),
        (0.08, 0.06, 0.06),
        (0.1, 0.04, 0.05),
        (0.1, 0.03, 0.03),
    )
    imagenet: ClassVar[tuple[Strength, ...]] = (
        (2, 0.7, 0.1),
        (2, 0.08, 0.2),
        (0.05, 0.01, 0.02),
        (0.07, 0.01, 0.02),
        (0.12, 0.01, 0.02),
    )

    def __call__(self, pixels: Floats, strength: Strength, rngs: Rngs) -> Floats:
        """Corrupt a batch."""
        from scipy.ndimage import gaussian_filter

        height, width = pixels.shape[1:3]
        size = min(height, width)
        reach, smooth, corner = (size * value for value in strength)
        stretched = affine(pixels, _maps(rngs, size, corner), edge="reflect")
        if not reach:
            return stretched
        noise = np.stack([rng.uniform(-1, 1, (2, height, width)) for rng in rngs])
        moves = reach * gaussian_filter(
            noise, (0, 0, smooth, smooth), mode="reflect", truncate=3
        ).astype(np.float32)
        rows, columns = grid(height, width)
        return sample(stretched, rows + moves[:, 1], columns + moves[:, 0], edge="reflect")


def _maps(rngs: Rngs, size: int, corner: float) -> npt.NDArray[np.float64]:
    """From the moved triangle back to the one in the middle, (n, 2, 3)."""
    third = size // 3
    before = np.array([[third, third], [third, -third], [-third, -third]], np.float64)
    maps = []
    for rng in rngs:
        after = before + rng.uniform(-corner, corner, (3, 2))
        maps.append(np.linalg.solve(np.column_stack([after, np.ones(3)]), before).T)
    return np.stack(maps)
