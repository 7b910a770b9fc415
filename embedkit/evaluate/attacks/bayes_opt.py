"""Bayesian optimisation in a space of low frequencies, by decisions alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import tee
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput
from embedkit.evaluate.attack import Found, Need, Problem, attacks
from embedkit.evaluate.measurement.victim.asking.frequencies import combined
from embedkit.evaluate.measurement.victim.asking.lanes import Search, drive, lanes_of
from embedkit.evaluate.oracle import Indices
from embedkit.evaluate.threat import Threat
from embedkit.types import Images

__all__ = ["BayesOpt", "farthest_points", "rotation"]

Points = npt.NDArray[np.float64]
"""Weights of the low frequencies, one point per row, (m, d), of unit length."""


@attacks.register("bayes_opt")
@dataclass(frozen=True)
class BayesOpt:
    """Hard-label attack for few queries by Bayesian optimisation (Shukla 2021).

    The objective over a few low frequencies per channel is 0 if the victim is fooled and -1 if
    not. A Gaussian process with a Matern 5/2 kernel stands for it, and the next query has the
    largest expected improvement among random candidates. Changes lie on the edge of the ball:
    of ``linf`` by their signs, of ``l2`` scaled to the radius.

    Every point tried before the first success says -1. The process' mean is then the same
    everywhere and the expected improvement grows with its deviation alone, so the points can be
    chosen without an answer: each is the farthest, in the process' sense, from those before it.
    They are chosen once, and each image tries them under a random rotation of its own, which
    leaves every distance as it is: the model is thought about once and not once per image.

    The paper fits the kernel's length at each step; with equal answers it has no maximum, so it
    is fixed here: the median distance between random points.

    Attributes:
        queries: Queries per image; the threat's limit caps them.
        frequencies: Cosines per axis and channel; the space has frequencies ** 2 * channels
            dimensions.
        starts: Random points asked about before the first model.
        candidates: Random points among which the next is chosen.

    Raises:
        InvalidInput: If a setting is out of range.
    """

    queries: int = 200
    frequencies: int = 6
    starts: int = 5
    candidates: int = 200

    needs: ClassVar[frozenset[Need]] = frozenset({"decisions"})
    norms: ClassVar[frozenset[str]] = frozenset({"linf", "l2"})

    def __post_init__(self) -> None:
        if min(self.queries, self.frequencies, self.starts, self.candidates) < 1:
            raise InvalidInput(
                "expected queries, frequencies, starts and candidates >= 1, got "
                f"{self.queries}, {self.frequencies}, {self.starts}, {self.candidates}"
            )

    def run(self, problem: Problem) -> Found:
        """Try points until the victim is fooled, or until the queries are used."""
        if problem.oracle is None:
            raise InvalidInput("expected an oracle that answers with decisions, got none")
        limit = problem.threat.query_limit
        queries = self.queries if limit is None else min(self.queries, limit)
        height, width, channels = problem.images.shape[1:]
        space = (channels, min(self.frequencies, height), min(self.frequencies, width))
        points = farthest_points(int(np.prod(space)), queries, self.starts, self.candidates)
        lanes = lanes_of(len(problem.images))
        drive(
            problem.oracle.fooled,
            [
                _search(problem, rows, space, mine)
                for rows, mine in zip(lanes, tee(points, len(lanes)), strict=True)
            ],
        )
        return Found(problem.oracle.best.astype(np.float32))


def _search(
    problem: Problem, lane: Indices, space: tuple[int, int, int], points: Iterator[Points]
) -> Search:
    """The search for the images of one lane."""
    rotations = np.stack([rotation(int(np.prod(space)), int(problem.keys[i])) for i in lane])
    for point in points:
        # One product per image, so that its rounding does not depend on the others.
        weights = (rotations @ point[:, None]).reshape(-1, *space)
        changes = combined(weights, problem.images.shape[1:3])
        fooled = yield _on_edge(problem.images[lane], changes, problem.threat), lane
        lane, rotations = lane[~fooled], rotations[~fooled]
        if not len(lane):
            return


def _on_edge(originals: Images, changes: npt.NDArray[np.float32], threat: Threat) -> Images:
    """The 8-bit images on the edge of the ball in the directions of changes, (n, h, w, c)."""
    if threat.norm == "linf":
        moved = originals + threat.radius_255 * np.sign(changes)
    else:
        lengths = np.sqrt((changes**2).sum(axis=(1, 2, 3), keepdims=True))
        moved = originals + threat.radius_255 * changes / np.maximum(lengths, 1e-12)
    return threat.quantise(moved.astype(np.float32), originals)


def rotation(dims: int, key: int) -> Points:
    """Return a uniformly random rotation or reflection, (d, d) (Mezzadri 2007)."""
    draws = np.random.default_rng(key).standard_normal((dims, dims))
    turned, triangle = np.linalg.qr(draws)
    return np.asarray(turned * np.sign(np.diag(triangle)))


# The median distance between two random directions in many dimensions.
_SCALE = float(np.sqrt(2))
_JITTER = 1e-6


def farthest_points(dims: int, count: int, starts: int, candidates: int) -> Iterator[Points]:
    """Yield unit vectors (d,) of which each is where a Gaussian process knows least.

    After ``starts`` random ones each is, of some random candidates, the one with the largest
    posterior variance given those before it.

    Args:
        dims: Dimensions.
        count: How many.
        starts: Random ones at the beginning.
        candidates: Random points among which each of the others is chosen.
    """
    from scipy.linalg import solve_triangular

    rng = np.random.default_rng(0)
    known = np.empty((count, dims))
    # The Cholesky factor of the kernel matrix grows by a row with each point.
    factor = np.zeros((count, count))
    for size in range(count):
        drawn = rng.standard_normal((candidates if size >= starts else 1, dims))
        drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
        cross = _kernel(known[:size], drawn)
        if size:
            cross = solve_triangular(factor[:size, :size], cross, lower=True)
        explained = (cross**2).sum(axis=0)
        choice = int(explained.argmin())
        known[size], factor[size, :size] = drawn[choice], cross[:, choice]
        factor[size, size] = np.sqrt(max(1 + _JITTER - explained[choice], _JITTER))
        yield known[size]


def _kernel(first: Points, second: Points) -> npt.NDArray[np.float64]:
    """Matern 5/2 (Rasmussen and Williams 2006, equation 4.17) with variance 1."""
    squares = np.maximum(2 - 2 * first @ second.T, 0)  # between unit vectors
    scaled = np.sqrt(5 * squares) / _SCALE
    return np.asarray((1 + scaled + scaled**2 / 3) * np.exp(-scaled))
