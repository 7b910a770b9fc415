"""Where the victim changes its mind: starts beyond the boundary, and bisection onto it."""

import math
from collections.abc import Generator

import numpy as np
import numpy.typing as npt

from embedkit.evaluate.measurement.victim.asking.lanes import Flags
from embedkit.types import Images

__all__ = ["Point", "ask", "bisected", "length", "random_start", "rounded"]

Point = npt.NDArray[np.float64]
"""One image in grey levels that need not be whole, (h, w, c)."""

Asking = Generator[Images, Flags, bool]


def rounded(point: Point) -> Images:
    """The 8-bit image that is sent for a point, (1, h, w, c)."""
    # Three operations in place: on one small image np.clip takes longer than they do.
    levels = np.rint(point)
    np.maximum(levels, 0, out=levels)
    np.minimum(levels, 255, out=levels)
    return levels.astype(np.uint8)[None]


def ask(point: Point) -> Asking:
    """Ask whether one point fools the victim."""
    answers = yield rounded(point)
    return bool(answers[0])


def length(delta: Point, norm: str) -> float:
    """Length of a change in grey levels."""
    if norm == "linf":
        return float(np.abs(delta).max())
    return math.sqrt(np.vdot(delta, delta))


def random_start(
    shape: tuple[int, ...], rng: np.random.Generator, tries: int
) -> Generator[Images, Flags, Point | None]:
    """Return uniform noise that fools the victim, or None if none of ``tries`` does."""
    for _ in range(tries):
        noise = rng.integers(0, 256, shape).astype(np.float64)
        if (yield from ask(noise)):
            return noise
    return None


def bisected(
    original: Point, outside: Point, norm: str, tolerance: float
) -> Generator[Images, Flags, Point]:
    """Return a point that fools the victim, at most ``tolerance`` beyond one that does not.

    Along the line to the original (``l2``), or along the boxes around it that shrink (``linf``:
    the values of ``outside`` clipped to the box). If the path crosses the boundary once, the
    distance found is at most ``tolerance`` more than that of the crossing.

    Args:
        original: The clean image; taken not to fool.
        outside: A point that fools.
        norm: ``linf`` or ``l2``.
        tolerance: Grey levels.
    """
    delta = outside - original
    whole = length(delta, norm)
    low, high = 0.0, 1.0
    while (high - low) * whole > tolerance:
        middle = (low + high) / 2
        if (yield from ask(original + _shrunk(delta, middle, whole, norm))):
            high = middle
        else:
            low = middle
    return original + _shrunk(delta, high, whole, norm)


def _shrunk(delta: Point, share: float, whole: float, norm: str) -> Point:
    if norm == "linf":
        return np.clip(delta, -share * whole, share * whole)
    return share * delta
