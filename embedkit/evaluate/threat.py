"""Threat: what an attacker may change, by how much, and how often the model may be asked."""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput
from embedkit.types import Images, Scores

__all__ = ["NORMS", "Candidates", "Threat", "ThreatNorm", "window_sums"]

ThreatNorm = Literal["linf", "l2", "patch"]
NORMS: tuple[ThreatNorm, ...] = ("linf", "l2", "patch")

Candidates = Annotated[npt.NDArray[np.float32], "n h w c"]
"""Attacked pixels before rounding, in grey levels of 0 to 255."""


@dataclass(frozen=True)
class Threat:
    """What may be changed of each image, and a limit on queries.

    Attributes:
        norm: ``linf`` (largest change of a pixel), ``l2`` (Euclidean length of the change) or
            ``patch`` (one square anywhere in the image).
        radius_255: Radius in grey levels, that is in steps of 1/255; a whole number for
            ``linf`` because the served model takes 8-bit pixels. Of a ``patch`` it bounds the
            change of a pixel, and must be 255: its values are free.
        query_limit: Images that an attack may send per image attacked; None is unlimited.
        side_px: Side of the square of a ``patch``, in pixels; 0 for the other norms.

    Raises:
        InvalidInput: If the norm is unknown, or the radius, side or limit is out of range.

    Example:
        >>> black = np.zeros((1, 2, 2, 1), np.uint8)
        >>> Threat("linf", 8).contains(black + np.uint8(9), black)
        array([False])
    """

    norm: ThreatNorm
    radius_255: float
    query_limit: int | None = None
    side_px: int = 0

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise InvalidInput(f"expected the norm 'linf', 'l2' or 'patch', got {self.norm!r}")
        if not 0 < self.radius_255 < np.inf:
            raise InvalidInput(f"expected radius_255 > 0, got {self.radius_255}")
        if self.norm == "linf" and self.radius_255 != int(self.radius_255):
            raise InvalidInput(
                f"expected a whole radius_255 for linf, got {self.radius_255}; 8-bit pixels "
                "cannot move by a fraction of a grey level"
            )
        if self.query_limit is not None and self.query_limit < 1:
            raise InvalidInput(f"expected query_limit >= 1 or None, got {self.query_limit}")
        if self.norm == "patch" and (self.side_px < 1 or self.radius_255 != 255):
            raise InvalidInput(
                f"expected side_px >= 1 and radius_255 255 for a patch, got {self.side_px} and "
                f"{self.radius_255:g}"
            )
        if self.norm != "patch" and self.side_px:
            raise InvalidInput(f"expected side_px for a patch alone, got it for {self.norm}")

    @classmethod
    def patch(cls, side_px: int, query_limit: int | None = None) -> "Threat":
        """Return the threat of a square of ``side_px`` pixels with free values, anywhere."""
        return cls("patch", 255, query_limit, side_px)

    @property
    def size(self) -> float:
        """How much is allowed: the radius in grey levels, of a patch the side in pixels."""
        return self.side_px if self.norm == "patch" else self.radius_255

    @property
    def name(self) -> str:
        """As metrics have it: ``8`` (linf), ``l2_64``, ``patch_5``."""
        return f"{self.size:g}" if self.norm == "linf" else f"{self.norm}_{self.size:g}"

    def distances(self, images: Images | Candidates, originals: Images) -> Scores:
        """How far each image is from its original, (n,), in the unit of ``size``.

        Of a patch it is the side of the smallest square that holds every change.
        """
        if self.norm == "linf" and images.dtype == np.uint8:
            apart = np.maximum(images, originals) - np.minimum(images, originals)
            largest = apart.reshape(len(apart), -1).max(axis=1, initial=0)
            return np.asarray(largest, np.float64)
        delta = images.astype(np.float64) - originals.astype(np.float64)
        if self.norm == "patch":
            return _extents(np.asarray((delta != 0).any(axis=3)))
        if self.norm == "linf":
            return np.asarray(np.abs(_flat(delta)).max(axis=1, initial=0.0))
        return np.asarray(np.linalg.norm(_flat(delta), axis=1))

    def contains(self, images: Images | Candidates, originals: Images) -> npt.NDArray[np.bool_]:
        """Whether each image lies in the ball and in 0 to 255, (n,)."""
        flat = _flat(images.astype(np.float64))
        exact = images.dtype == np.uint8
        # A float32 grey level near 255 is off by up to 2**-17.
        slack = 0.0 if exact else 2**-16 * np.sqrt(flat.shape[1])
        near = self.distances(images, originals) <= self.size + slack
        return np.asarray(near & (flat >= 0).all(axis=1) & (flat <= 255).all(axis=1))

    def project(self, candidates: Candidates, originals: Images) -> Candidates:
        """Return the nearest pixels inside the ball and inside 0 to 255, not rounded.

        Of a patch the square that keeps most of the change stays, and the rest is undone.
        Candidates that are not numbers fall back to the original.
        """
        if self.norm == "linf":
            return _into_box(candidates, originals, self.radius_255)
        centre = originals.astype(np.float64)
        delta = np.nan_to_num(candidates.astype(np.float64) - centre, nan=0.0)
        if self.norm == "patch":
            delta = delta * _strongest_window(delta, self.side_px)
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
        if self.norm == "linf":
            pixels = _into_box(candidates, originals, self.radius_255)
            # Halves go towards the even change, not the even level.
            pixels -= originals
            np.rint(pixels, out=pixels)
            pixels += originals
            return pixels.astype(np.uint8)
        centre = originals.astype(np.int64)
        delta = self.project(candidates, originals).astype(np.float64) - centre
        rounded = np.rint(delta).astype(np.int64)
        if self.norm == "l2":
            for index, exact in enumerate(delta):
                rounded[index] = _shortened(exact, rounded[index], self.radius_255)
        return np.asarray(np.clip(centre + rounded, 0, 255), dtype=np.uint8)


def _into_box(candidates: Candidates, originals: Images, radius: float) -> Candidates:
    """Candidates clipped to the linf ball and to 0 to 255; the original where no number is."""
    reach = np.uint8(min(radius, 255))
    low = np.maximum(originals, reach) - reach
    high = np.minimum(originals, 255 - reach) + reach
    pixels: Candidates = np.clip(candidates, low, high, dtype=np.float32)
    missing = np.isnan(pixels)
    if missing.any():
        pixels[missing] = originals[missing]
    return pixels


def _flat(pixels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return pixels.reshape(len(pixels), int(np.prod(pixels.shape[1:])))


def window_sums(values: npt.NDArray[np.float64], side: int) -> npt.NDArray[np.float64]:
    """Sum of (n, h, w) over every square window, (n, h - side + 1, w - side + 1)."""
    padded = np.pad(values, ((0, 0), (1, 0), (1, 0))).cumsum(axis=1).cumsum(axis=2)
    rows = padded[:, side:] - padded[:, :-side]
    return np.asarray(rows[:, :, side:] - rows[:, :, :-side])


def _strongest_window(delta: npt.NDArray[np.float64], side: int) -> npt.NDArray[np.bool_]:
    """The square of each image with the largest sum of squares, as a mask (n, h, w, 1)."""
    n, height, width, _ = delta.shape
    side = min(side, height, width)
    mass = (delta**2).sum(axis=3)
    sums = window_sums(mass, side)
    # Sums are rounded: a window that holds every change must win whatever the last bit says.
    inside = window_sums((mass > 0).astype(np.float64), side)
    sums[inside == (mass > 0).sum(axis=(1, 2))[:, None, None]] = np.inf
    tops, lefts = np.unravel_index(sums.reshape(n, -1).argmax(axis=1), sums.shape[1:])
    rows, columns = np.arange(height)[None], np.arange(width)[None]
    tall = (rows >= tops[:, None]) & (rows < tops[:, None] + side)
    wide = (columns >= lefts[:, None]) & (columns < lefts[:, None] + side)
    return np.asarray((tall[:, :, None] & wide[:, None, :])[..., None])


def _extents(changed: npt.NDArray[np.bool_]) -> Scores:
    """Side of the smallest square around the changed pixels (n, h, w) of each image, (n,)."""
    sides = np.zeros(len(changed))
    for axis in (1, 2):
        lines: npt.NDArray[np.bool_] = np.asarray(changed.any(axis=axis))
        first = lines.argmax(axis=1)
        last = lines.shape[1] - lines[:, ::-1].argmax(axis=1)
        sides = np.maximum(sides, np.where(lines.any(axis=1), last - first, 0))
    return sides


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
