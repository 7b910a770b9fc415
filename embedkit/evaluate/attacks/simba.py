"""SimBA: one basis vector at a time, plus or minus, by score queries."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput
from embedkit.evaluate.attack import Found, Need, Problem, attacks
from embedkit.evaluate.measurement.victim.asking.frequencies import cosines, low_frequencies
from embedkit.evaluate.measurement.victim.asking.lanes import Search, drive, lanes_of
from embedkit.evaluate.oracle import Indices
from embedkit.evaluate.threat import Candidates, Threat
from embedkit.perturb.randomness import Keys, uniforms
from embedkit.types import Images

__all__ = ["SimBA", "directions", "order_of"]


@attacks.register("simba")
@dataclass(frozen=True)
class SimBA:
    """Simple black-box attack (Guo 2019): steps along an orthonormal basis in random order.

    Each step asks about minus and, if that did not lower the margin, plus one basis vector; one
    that lowers it is kept. Bases are single values of pixels, or two-dimensional cosines of low
    frequency per channel. Steps that would leave the ball are projected back onto it. The
    change is kept before rounding, and every query is rounded to 8 bits.

    Attributes:
        queries: Queries per image; the threat's limit caps them.
        basis: ``pixel`` or ``dct``.
        step_255: Length of a step in grey levels; 0 chooses the radius for ``linf`` (of a
            single value, or of the largest of a cosine), and for ``l2`` a quarter of it.
        frequencies: Share of each axis' frequencies that ``dct`` uses, in (0, 1].

    Raises:
        InvalidInput: If a setting is out of range.
    """

    queries: int = 1000
    basis: Literal["pixel", "dct"] = "dct"
    step_255: float = 0.0
    frequencies: float = 0.25

    needs: ClassVar[frozenset[Need]] = frozenset({"scores"})
    norms: ClassVar[frozenset[str]] = frozenset({"linf", "l2"})

    def __post_init__(self) -> None:
        if self.queries < 1 or self.step_255 < 0 or not 0 < self.frequencies <= 1:
            raise InvalidInput(
                "expected queries >= 1, step_255 >= 0 and frequencies in (0, 1], got "
                f"{self.queries}, {self.step_255}, {self.frequencies}"
            )
        if self.basis not in ("pixel", "dct"):
            raise InvalidInput(f"expected the basis 'pixel' or 'dct', got {self.basis!r}")

    def run(self, problem: Problem) -> Found:
        """Search until every image is fooled or the queries are used."""
        if problem.oracle is None:
            raise InvalidInput("expected an oracle that answers with scores, got none")
        changed = problem.images.astype(np.float32)
        lanes = lanes_of(len(changed))
        drive(problem.oracle.margins, [self._search(problem, r, changed) for r in lanes])
        return Found(changed)

    def _search(self, problem: Problem, lane: Indices, changed: Candidates) -> Search:
        """The search for the images of one lane, in place."""
        limit = problem.threat.query_limit
        left = self.queries if limit is None else min(self.queries, limit)
        size = len(self._basis_size(problem.images.shape[1:]))
        margins = np.full(len(changed), np.inf)
        spent = np.ones(len(changed), np.int64)
        margins[lane] = yield problem.images[lane], lane
        step, order = 0, np.empty((0, 0), np.int64)
        while True:
            if step % size == 0:
                order = np.full((len(changed), size), 0)
                order[lane] = order_of(
                    problem.keys[lane], step // size, self._basis_size(problem.images.shape[1:])
                )
            rows = lane[(margins[lane] > 0) & (spent[lane] < left)]
            if not len(rows):
                return
            for sign in (-1.0, 1.0):
                tried, images = self._tried(
                    problem, rows, order[rows, step % size], sign, changed
                )
                asked = yield images, rows
                spent[rows] += 1
                won = asked < margins[rows]
                changed[rows[won]] = tried[won]
                margins[rows[won]] = asked[won]
                rows = rows[~won & (spent[rows] < left)]
                if not len(rows):
                    break
            step += 1

    def _tried(
        self, problem: Problem, rows: Indices, chosen: Indices, sign: float, changed: Candidates
    ) -> tuple[Candidates, Images]:
        """The images to ask about, before and after rounding."""
        originals, threat = problem.images[rows], problem.threat
        vectors = directions(chosen, originals.shape[1:], self.basis)
        moved = changed[rows] + sign * self._step(threat, vectors) * vectors
        tried = threat.project(moved.astype(np.float32), originals)
        return tried, threat.quantise(tried, originals)

    def _step(self, threat: Threat, vectors: Candidates) -> npt.NDArray[np.float32] | float:
        if self.step_255:
            return self.step_255
        if threat.norm == "l2":
            return threat.radius_255 / 4
        peaks = np.abs(vectors).max(axis=(1, 2, 3), keepdims=True)
        return np.asarray(threat.radius_255 / peaks, np.float32)

    def _basis_size(self, shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
        """Indices of the basis vectors that are tried."""
        if self.basis == "pixel":
            return np.arange(int(np.prod(shape)))
        return low_frequencies(shape, self.frequencies)


def order_of(keys: Keys, epoch: int, basis: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the basis vectors in the random order of each image, (n, len(basis))."""
    return basis[np.argsort(uniforms(keys, epoch, len(basis)), axis=1)]


def directions(
    chosen: npt.NDArray[np.int64], shape: tuple[int, ...], basis: Literal["pixel", "dct"]
) -> Candidates:
    """Return basis vectors of unit length as images, (n, h, w, c).

    Args:
        chosen: Index of a vector for each image, (n,): of a value in C order, or of the
            frequency at that place.
        shape: (h, w, c).
        basis: ``pixel`` or ``dct``.
    """
    if basis == "dct":
        return cosines(chosen, shape)
    made = np.zeros((len(chosen), int(np.prod(shape))), np.float32)
    made[np.arange(len(chosen)), chosen] = 1
    return made.reshape(-1, *shape)
