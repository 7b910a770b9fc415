"""Threat: what an attacker may change, by how much, and how often the model may be asked."""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput
from embedkit.types import Images, Scores

__all__ = ["Candidates", "Threat"]

Candidates = Annotated[npt.NDArray[np.float32], "n h w c"]
"""Attacked pixels before rounding, in grey levels of 0 to 255."""


@dataclass(frozen=True)
class Threat:
    """A ball around each image, and a limit on queries.

    Attributes:
        norm: ``linf`` (largest change of a pixel) or ``l2`` (Euclidean length of the change).
        radius_255: Radius in grey levels, that is in steps of 1/255; a whole number for
            ``linf`` because the served model takes 8-bit pixels.
        query_limit: Images that an attack may send per image attacked; None is unlimited.

    Raises:
        InvalidInput: If the norm is unknown, or the radius or the limit is out of range.

    Example:
        >>> black = np.zeros((1, 2, 2, 1), np.uint8)
        >>> Threat("linf", 8).contains(black + np.uint8(9), black)
        array([False])
    """

    norm: Literal["linf", "l2"]
    radius_255: float
    query_limit: int | None = None

    def __post_init__(self) -> None:
        if self.norm not in ("linf", "l2"):
            raise InvalidInput(f"expected the norm 'linf' or 'l2', got {self.norm!r}")
        if not 0 < self.radius_255 < np.inf:
            raise InvalidInput(f"expected radius_255 > 0, got {self.radius_255}")
        if self.norm == "linf" and self.radius_255 != int(self.radius_255):
            raise InvalidInput(
                f"expected a whole radius_255 for linf, got {self.radius_255}; 8-bit pixels "
                "cannot move by a fraction of a grey level"
            )
        if self.query_limit is not None and self.query_limit < 1:
            raise InvalidInput(f"expected query_limit >= 1 or None, got {self.query_limit}")

    def distances(self, images: Images | Candidates, originals: Images) -> Scores:
        """Distance of each image from its original in the threat's norm, (n,) grey levels."""
        delta = images.astype(np.float64) - originals.astype(np.float64)
        if self.norm == "linf":
            return np.asarray(np.abs(_flat(delta)).max(axis=1, initial=0.0))
        return np.asarray(np.linalg.norm(_flat(delta), axis=1))

    def contains(self, images: Images | Candidates, originals: Images) -> npt.NDArray[np.bool_]:
        """Whether each image lies in the ball and in 0 to 255, (n,)."""
        flat = _flat(images.astype(np.float64))
        exact = images.dtype == np.uint8
        # A float32 grey level near 255 is off by up to 2**-17.
        slack = 0.0 if exact else 2**-16 * np.sqrt(flat.shape[1])
        near = self.distances(images, originals) <= self.radius_255 + slack
        return np.asarray(near & (flat >= 0).all(axis=1) & (flat <= 255).all(axis=1))

    def project(self, candidates: Candidates, originals: Images) -> Candidates:
        """Return the nearest pixels inside the ball and inside 0 to 255, not rounded.

        Candidates that are not numbers fall back to the original.
        """
        centre = originals.astype(np.float64)
        delta = np.nan_to_num(candidates.astype(np.float64) - centre, nan=0.0)
        if self.norm == "linf":
            delta = np.clip(delta, -self.radius_255, self.radius_255)
        else:
            lengths = np.linalg.norm(_flat(delta), axis=1)
            scale = self.radius_255 / np.maximum(lengths, self.radius_255)
            delta = delta * scale.reshape(-1, 1, 1, 1)
        return np.clip(centre + delta, 0, 255).astype(np.float32)

    def quantise(self, candidates: Candidates, originals: Images) -> Images:
        """Return 8-bit images inside the ball: what the server would really receive.

        Args:
            candidates: Attacked pixels, (n, h, w, c), anywhere.
            originals: The clean images, (n, h, w, c).

        Returns:
            (n, h, w, c) uint8. Rounding is to the nearest level, except that an ``l2`` ball is
            kept by rounding as many components as needed towards the original instead.
        """
        centre = originals.astype(np.int64)
        delta = self.project(candidates, originals).astype(np.float64) - centre
        rounded = np.rint(delta).astype(np.int64)
        if self.norm == "l2":
            for index, exact in enumerate(delta):
                rounded[index] = _shortened(exact, rounded[index], self.radius_255)
        return np.asarray(np.clip(centre + rounded, 0, 255), dtype=np.uint8)


def _flat(pixels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return pixels.reshape(len(pixels), int(np.prod(pixels.shape[1:])))


def _shortened(
    exact: npt.NDArray[np.float64], rounded: npt.NDArray[np.int64], radius: float
) -> npt.NDArray[np.int64]:
    """Round components towards zero, those nearest to one half first, until in the l2 ball."""
    excess = float(np.sum(rounded**2)) - radius**2
    if excess <= 0:
        return rounded
    flat = rounded.ravel().copy()
    error = np.abs(flat - exact.ravel())
    enlarged = np.flatnonzero(np.abs(flat) > np.abs(exact.ravel()))
    order = enlarged[np.argsort(-error[enlarged], kind="stable")]
    saved = np.cumsum(2 * np.abs(flat[order]) - 1)
    chosen = order[: int(np.searchsorted(saved, excess)) + 1]
    flat[chosen] -= np.sign(flat[chosen])
    return flat.reshape(rounded.shape)
