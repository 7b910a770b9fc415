"""RayS: a search over signs for the nearest decision boundary, by decisions alone."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput
from embedkit.evaluate.attack import Found, Need, Problem, attacks
from embedkit.evaluate.measurement.victim.asking.boundary import Point, ask
from embedkit.evaluate.measurement.victim.asking.lanes import Flags, Solo, each_alone
from embedkit.types import Images

__all__ = ["RayS", "along_ray", "blocks"]

Signs = npt.NDArray[np.float64]

_WHOLE_RANGE = 255.0


@attacks.register("rays")
@dataclass(frozen=True)
class RayS:
    """Ray searching (Chen and Gu 2020): flip the signs of ever smaller blocks of the image.

    A ray leaves the image along a vector of signs; its radius is where the victim is fooled.
    Each step flips one block of signs and asks once at the best radius known: only if that
    fools is the new radius found by bisection. Blocks are halves of the flattened image, then
    quarters, and so on. There is no gradient to estimate and no start to find: it stops inside
    the threat.

    In 8-bit pixels a radius between two levels moves that share of the values, a random choice
    fixed per image, by the larger one, so that progress below a grey level is still seen.

    Attributes:
        queries: Queries per image; the threat's limit caps them.
        tolerance_255: Width at which a bisection ends, in grey levels.

    Raises:
        InvalidInput: If a setting is out of range.
    """

    queries: int = 1000
    tolerance_255: float = 0.05

    needs: ClassVar[frozenset[Need]] = frozenset({"decisions"})
    norms: ClassVar[frozenset[str]] = frozenset({"linf"})

    def __post_init__(self) -> None:
        if self.queries < 1 or self.tolerance_255 <= 0:
            raise InvalidInput(
                f"expected queries >= 1 and tolerance_255 > 0, got {self.queries}, "
                f"{self.tolerance_255}"
            )

    def run(self, problem: Problem) -> Found:
        """Shorten the ray of each image until inside the threat, or out of queries."""
        if problem.oracle is None:
            raise InvalidInput("expected an oracle that answers with decisions, got none")

        def solo(index: int, left: Callable[[], int]) -> Solo:
            del left  # one query at a time: it is stopped from outside
            original = problem.images[index].astype(np.float64)
            rng = np.random.default_rng(problem.keys[index])
            return self._search(original, rng.random(original.shape))

        each_alone(problem.oracle, len(problem.images), self.queries, solo)
        return Found(problem.oracle.best.astype(np.float32))

    def _search(self, original: Point, thresholds: Point) -> Solo:
        best = np.inf
        signs = np.ones(original.shape)
        for tried in blocks(signs.shape):
            attempt = np.where(tried, -signs, signs)
            radius = yield from self._radius(original, attempt, thresholds, best)
            if radius < best:
                best, signs = radius, attempt

    def _radius(
        self, original: Point, signs: Signs, thresholds: Point, best: float
    ) -> Generator[Images, Flags, float]:
        """The radius along a ray, or +inf after a single query if it is no shorter."""
        low, high = 0.0, min(best - self.tolerance_255, _WHOLE_RANGE)
        if high <= 0 or not (yield from ask(along_ray(original, signs, high, thresholds))):
            return np.inf
        while high - low > self.tolerance_255:
            middle = (low + high) / 2
            if (yield from ask(along_ray(original, signs, middle, thresholds))):
                high = middle
            else:
                low = middle
        return high


def along_ray(original: Point, signs: Signs, radius: float, thresholds: Point) -> Point:
    """Return the image at a radius, (h, w, c) whole grey levels, also below 0 and above 255.

    Args:
        original: The clean image.
        signs: Plus or minus one, (h, w, c).
        radius: Grey levels; the fraction is the share of the values that move one level more.
        thresholds: Uniform in [0, 1), (h, w, c): which values these are.
    """
    return np.asarray(original + signs * np.floor(radius + thresholds))


def blocks(shape: tuple[int, ...]) -> Generator[npt.NDArray[np.bool_], None, None]:
    """Yield masks (h, w, c): the image, its halves, quarters, ... down to single values, again.

    The image is flattened channel by channel, as in the published code.
    """
    height, width, channels = shape
    size = height * width * channels
    while True:
        parts = 1
        while True:
            block = -(-size // parts)
            for start in range(0, size, block):
                flat = np.zeros(size, bool)
                flat[start : start + block] = True
                yield flat.reshape(channels, height, width).transpose(1, 2, 0)
            if block == 1:
                break
            parts *= 2
