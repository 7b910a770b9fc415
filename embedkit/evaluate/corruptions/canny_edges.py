"""Outlines alone."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from embedkit.evaluate.corruption import Rngs, Strength, corruptions
from embedkit.evaluate.measurement.pixels.warp import Floats

__all__ = ["CannyEdges"]


@corruptions.register("canny_edges")
@dataclass(frozen=True)
class CannyEdges:
    """Keeps the edges that Canny's method finds: white on black."""

    cifar: ClassVar[tuple[Strength, ...]] = ((1,),)
    imagenet: ClassVar[tuple[Strength, ...]] = ((1,),)

    def __call__(self, pixels: Floats, strength: Strength, rngs: Rngs) -> Floats:
        """Corrupt a batch."""
        grey = pixels.mean(axis=3)
        edges = np.stack([_edges(image) for image in grey]).astype(np.float32)
        return np.repeat(edges[..., np.newaxis], pixels.shape[3], axis=3)


def _edges(grey: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Canny (1986) with sigma 1 and hysteresis from 0.1 to 0.2, as scikit-image's defaults."""
    from scipy.ndimage import gaussian_filter, label, sobel

    smooth = gaussian_filter(grey.astype(np.float64), 1, mode="constant")
    weight = gaussian_filter(np.ones_like(smooth), 1, mode="constant")
    smooth /= weight
    down, right = sobel(smooth, axis=0), sobel(smooth, axis=1)
    size = np.hypot(down, right)
    padded = np.pad(size, 1)
    # The neighbours along the gradient, in steps of 45 degrees.
    turn = np.rint(np.arctan2(down, right) / (np.pi / 4)).astype(int) % 4
    steps = np.array([(0, 1), (1, 1), (1, 0), (1, -1)])[turn]
    rows, columns = np.indices(size.shape)
    ahead = padded[rows + 1 + steps[..., 0], columns + 1 + steps[..., 1]]
    behind = padded[rows + 1 - steps[..., 0], columns + 1 - steps[..., 1]]
    ridge = (size >= ahead) & (size >= behind)
    ridge[[0, -1]] = ridge[:, [0, -1]] = False
    parts, count = label(ridge & (size >= 0.1), np.ones((3, 3)))
    strong = np.zeros(count + 1, bool)
    strong[np.unique(parts[ridge & (size >= 0.2)])] = True
    strong[0] = False
    found: npt.NDArray[np.bool_] = strong[parts]
    return found
