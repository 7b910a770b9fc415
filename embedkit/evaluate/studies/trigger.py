"""The trigger of CTRL: two coefficients of an image's cosine transform are raised."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput
from embedkit.types import Images

__all__ = ["CONTROL", "Trigger", "psnr_db"]

Planes = npt.NDArray[np.float64]

_TO_YCBCR = np.array(
    [
        [0.299, 0.587, 0.114],
        [-0.299 / 1.772, -0.587 / 1.772, 0.886 / 1.772],
        [0.701 / 1.402, -0.587 / 1.402, -0.114 / 1.402],
    ]
)
"""Full-range YCbCr of JPEG, without the offset of 128: changes do not see it."""

CONTROL = (7, 23)
"""Frequencies of a trigger of the same strength that no training image has."""


@dataclass(frozen=True)
class Trigger:
    """Raises coefficients of the orthonormal DCT-II of each block (Li et al. 2023).

    Colour images change in Cb and Cr; grey ones, which have no colour to hide it in, in their
    brightness. A change of one coefficient by m in a block of w pixels changes a plane by at
    most 2 m / w.

    Attributes:
        magnitude: Added to each coefficient, in grey levels of 255.
        block_px: Side of a block; smaller images are one block, and frequencies shrink with it.
            What does not fill a block stays as it is.
        frequencies: Each f stands for the coefficient (f, f), 0 to ``block_px`` - 1.
    """

    magnitude: float = 100.0
    block_px: int = 32
    frequencies: tuple[int, ...] = (15, 31)

    def __post_init__(self) -> None:
        """Check strength and frequencies."""
        if not np.isfinite(self.magnitude):
            raise InvalidInput(f"expected a finite magnitude, got {self.magnitude}")
        if not self.frequencies or not all(0 <= f < self.block_px for f in self.frequencies):
            raise InvalidInput(
                f"expected frequencies from 0 to {self.block_px - 1}, got {self.frequencies}"
            )

    def control(self) -> "Trigger":
        """The same at unrelated frequencies."""
        return replace(self, frequencies=CONTROL)

    def __call__(self, images: Images) -> Images:
        """Return the images (n, h, w, c) with the trigger, clipped and rounded."""
        height, width, channels = images.shape[1:]
        side = min(self.block_px, height, width)
        pattern = np.zeros((height, width))
        block = self._block(side)
        for top in range(0, height - side + 1, side):
            for left in range(0, width - side + 1, side):
                pattern[top : top + side, left : left + side] = block
        weights = np.ones(1) if channels == 1 else _chroma()
        # The transforms are linear: to raise a coefficient is to add its wave.
        changed = images + pattern[:, :, np.newaxis] * weights
        return np.asarray(np.rint(changed.clip(0, 255)), np.uint8)

    def _block(self, side: int) -> Planes:
        """What is added to a plane of one block, (side, side)."""
        block = np.zeros((side, side))
        for frequency in self.frequencies:
            # 15 and 31 of 32: the middle and the highest, whatever the side is.
            f = (frequency + 1) * side // self.block_px - 1
            scale = np.sqrt((1 if f == 0 else 2) / side)
            wave = scale * np.cos(np.pi * (2 * np.arange(side) + 1) * f / (2 * side))
            block += self.magnitude * np.outer(wave, wave)
        return block


def _chroma() -> npt.NDArray[np.float64]:
    """What a rise of Cb and Cr by 1 does to red, green and blue."""
    return np.asarray(np.linalg.inv(_TO_YCBCR) @ np.array([0.0, 1.0, 1.0]))


def psnr_db(images: Images, changed: Images) -> npt.NDArray[np.float64]:
    """Peak signal-to-noise ratio of each changed image, (n,) dB; infinite where none did."""
    squared = (images.astype(np.float64) - changed) ** 2
    error = squared.reshape(len(images), -1).mean(axis=1)
    with np.errstate(divide="ignore"):
        return np.asarray(10 * np.log10(255**2 / error), np.float64)
