"""Square attack: random search with square patches, by score queries alone."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput
from embedkit.evaluate.attack import Found, Need, Problem, attacks
from embedkit.evaluate.measurement.victim.asking.lanes import Search, drive, lanes_of
from embedkit.evaluate.oracle import Indices
from embedkit.perturb.randomness import uniforms
from embedkit.types import Images

__all__ = ["Square", "patch_side", "patched", "stripes"]

# Queries, of a schedule of 10,000, after which the area of the patch is halved (the paper).
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_SCHEDULE = 10_000

Uniform = npt.NDArray[np.float64]


@attacks.register("square")
@dataclass(frozen=True)
class Square:
    """Square attack (Andriushchenko 2020) in 8-bit pixels, one query per image and step.

    Every pixel sits on the edge of the ball; a step flips a random square to a random sign per
    channel and is kept if the margin fell. All images step together, so that the server gets
    full batches, yet each draws from its own key, so that results do not depend on the batch.
    Images already fooled are not asked about again.

    The window may touch every border. The published code never moves the last row and column,
    which on a small image is a visible part of it.

    Attributes:
        queries: Queries per image, the first stripes included; the threat's limit caps them.
        area: Share of the image that the first square covers, in (0, 1].

    Raises:
        InvalidInput: If a setting is out of range.
    """

    queries: int = 1000
    area: float = 0.8

    needs: ClassVar[frozenset[Need]] = frozenset({"scores"})
    norms: ClassVar[frozenset[str]] = frozenset({"linf"})

    def __post_init__(self) -> None:
        if self.queries < 1 or not 0 < self.area <= 1:
            raise InvalidInput(
                f"expected queries >= 1 and area in (0, 1], got {self.queries}, {self.area}"
            )

    def run(self, problem: Problem) -> Found:
        """Search until every image is fooled or the queries are used."""
        if problem.oracle is None:
            raise InvalidInput("expected an oracle that answers with scores, got none")
        limit = problem.threat.query_limit
        queries = self.queries if limit is None else min(self.queries, limit)
        best = problem.images.copy()
        lanes = lanes_of(len(best))
        drive(
            problem.oracle.margins,
            [self._search(problem, rows, queries, best) for rows in lanes],
        )
        return Found(best.astype(np.float32))

    def _search(self, problem: Problem, lane: Indices, queries: int, best: Images) -> Search:
        """The search for the images of one lane; ``best`` is where their results go."""
        radius = int(problem.threat.radius_255)
        originals, keys = problem.images, problem.keys
        height, width, channels = originals.shape[1:]
        best[lane] = stripes(originals[lane], uniforms(keys[lane], 0, width * channels), radius)
        margins = np.full(len(originals), np.inf)
        margins[lane] = yield best[lane], lane
        for step in range(1, queries):
            rows = lane[margins[lane] > 0]
            if not len(rows):
                return
            side = patch_side(step - 1, queries, self.area, (height, width))
            draws = uniforms(keys[rows], step, 2 + channels)
            tried = patched(originals[rows], best[rows], draws, side, radius)
            asked = yield tried, rows
            won = asked < margins[rows]
            best[rows[won]] = tried[won]
            margins[rows[won]] = asked[won]


def patch_side(step: int, queries: int, area: float, size: tuple[int, int]) -> int:
    """Side of the square at a step, in pixels, at least 1 and at most the shorter border.

    The area shrinks by halves on the paper's schedule, stretched to the queries there are.
    """
    position = int(step / queries * _SCHEDULE)
    share = area / 2 ** sum(position > after for after in _HALVINGS)
    side = round(float(np.sqrt(share * size[0] * size[1])))
    return int(np.clip(side, 1, min(size)))


def stripes(originals: Images, draws: Uniform, radius: int) -> Images:
    """Return images with vertical stripes of plus or minus ``radius``, one sign per column.

    Args:
        originals: (n, h, w, c) uint8.
        draws: Uniform in [0, 1), (n, w * c): a sign per column and channel.
        radius: Grey levels.
    """
    n, _, width, channels = originals.shape
    return _moved(originals, _signs(draws).reshape(n, 1, width, channels), radius)


def patched(originals: Images, best: Images, draws: Uniform, side: int, radius: int) -> Images:
    """Return ``best`` with one square of each image set to the edge of the ball.

    Args:
        originals: Clean images, (n, h, w, c) uint8.
        best: The best images so far, same shape.
        draws: Uniform in [0, 1), (n, 2 + c): row, column, and a sign per channel.
        side: Side of the square in pixels.
        radius: Grey levels.

    Returns:
        The images to try. A square that would change nothing takes the opposite signs, so that
        no query is wasted.
    """
    n, height, width, channels = originals.shape
    top = (draws[:, 0] * (height - side + 1)).astype(np.int64)[:, None]
    left = (draws[:, 1] * (width - side + 1)).astype(np.int64)[:, None]
    tall = (np.arange(height) >= top) & (np.arange(height) < top + side)
    wide = (np.arange(width) >= left) & (np.arange(width) < left + side)
    window = (tall[:, :, None] & wide[:, None, :])[..., None]
    signs = _signs(draws[:, 2:]).reshape(n, 1, 1, channels)
    tried = np.where(window, _moved(originals, signs, radius), best)
    idle = (tried == best).reshape(n, -1).all(axis=1)
    tried[idle] = np.where(
        window[idle], _moved(originals[idle], -signs[idle], radius), best[idle]
    )
    return np.asarray(tried, dtype=np.uint8)


def _signs(draws: Uniform) -> npt.NDArray[np.int16]:
    return np.where(draws < 0.5, -1, 1).astype(np.int16)


def _moved(originals: Images, signs: npt.NDArray[np.int16], radius: int) -> Images:
    moved = np.clip(originals.astype(np.int16) + radius * signs, 0, 255)
    return np.asarray(moved, dtype=np.uint8)
