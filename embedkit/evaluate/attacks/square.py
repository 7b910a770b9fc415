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

__all__ = ["Square", "edges_of", "patch_side", "patched", "stripes"]

# Queries, of a schedule of 10,000, after which the area of the patch is halved (the paper).
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_SCHEDULE = 10_000

Uniform = npt.NDArray[np.float64]
Edges = tuple[Images, Images]


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
        keys = problem.keys
        height, width, channels = problem.images.shape[1:]
        edges = edges_of(problem.images[lane], int(problem.threat.radius_255))
        best[lane] = stripes(edges, uniforms(keys[lane], 0, width * channels))
        margins = yield best[lane], lane
        for step in range(1, queries):
            left = np.flatnonzero(margins > 0)
            if not len(left):
                return
            rows = lane[left]
            side = patch_side(step - 1, queries, self.area, (height, width))
            draws = uniforms(keys[rows], step, 2 + channels)
            tried = patched((edges[0][left], edges[1][left]), best[rows], draws, side)
            asked = yield tried, rows
            won = asked < margins[left]
            best[rows[won]] = tried[won]
            margins[left[won]] = asked[won]


def patch_side(step: int, queries: int, area: float, size: tuple[int, int]) -> int:
    """Side of the square at a step, in pixels, at least 1 and at most the shorter border.

    The area shrinks by halves on the paper's schedule, stretched to the queries there are.
    """
    position = int(step / queries * _SCHEDULE)
    share = area / 2 ** sum(position > after for after in _HALVINGS)
    side = round(float(np.sqrt(share * size[0] * size[1])))
    return int(np.clip(side, 1, min(size)))


def edges_of(originals: Images, radius: int) -> Edges:
    """Return the images ``radius`` grey levels below and above, inside 0 to 255."""
    low = np.maximum(originals, radius) - np.uint8(radius)
    high = np.minimum(originals, 255 - radius) + np.uint8(radius)
    return low, high


def stripes(edges: Edges, draws: Uniform) -> Images:
    """Return images of vertical stripes on either edge, one draw per column and channel.

    Args:
        edges: As ``edges_of`` gives them, (n, h, w, c) each.
        draws: Uniform in [0, 1), (n, w * c); from one half the upper edge.
    """
    n, _, width, channels = edges[0].shape
    return np.where((draws < 0.5).reshape(n, 1, width, channels), *edges)


def patched(edges: Edges, best: Images, draws: Uniform, side: int) -> Images:
    """Return ``best`` with one square of each image set to the edge of the ball.

    Args:
        edges: As ``edges_of`` gives them, (n, h, w, c) each.
        best: The best images so far, same shape.
        draws: Uniform in [0, 1), (n, 2 + c): row, column, and a sign per channel.
        side: Side of the square in pixels.

    Returns:
        The images to try. A square that would change nothing takes the opposite signs, so that
        no query is wasted.
    """
    n, height, width, channels = best.shape
    top = (draws[:, 0] * (height - side + 1)).astype(np.int64)[:, None]
    left = (draws[:, 1] * (width - side + 1)).astype(np.int64)[:, None]
    tall = (np.arange(height) >= top) & (np.arange(height) < top + side)
    wide = (np.arange(width) >= left) & (np.arange(width) < left + side)
    # Columns and channels as one axis: numpy is slow where the last axis is short.
    window = tall[:, :, None] & np.repeat(wide, channels, axis=1)[:, None]
    is_low = np.tile(draws[:, 2:] < 0.5, width)[:, None]
    low, high, old = (array.reshape(n, height, -1) for array in (*edges, best))
    tried = np.where(window, np.where(is_low, low, high), old)
    idle = np.flatnonzero((tried == old).all(axis=(1, 2)))
    if len(idle):
        opposite = np.where(is_low[idle], high[idle], low[idle])
        tried[idle] = np.where(window[idle], opposite, old[idle])
    return tried.reshape(best.shape)
