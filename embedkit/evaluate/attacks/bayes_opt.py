"""Bayesian optimisation in a space of low frequencies, by decisions alone."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput
from embedkit.evaluate.attack import Found, Need, Problem, attacks
from embedkit.evaluate.measurement.victim.asking.boundary import ask
from embedkit.evaluate.measurement.victim.asking.frequencies import combined
from embedkit.evaluate.measurement.victim.asking.lanes import Solo, each_alone
from embedkit.evaluate.threat import Threat
from embedkit.types import Images

__all__ = ["BayesOpt", "expected_improvement", "posterior"]

Points = npt.NDArray[np.float64]
"""Weights of the low frequencies, one point per row, (m, d), of unit length."""


@attacks.register("bayes_opt")
@dataclass(frozen=True)
class BayesOpt:
    """Hard-label attack for few queries by Bayesian optimisation (Shukla 2021).

    The objective over a few low frequencies per channel is 0 if the victim is fooled and -1 if
    not, so every point tried before the first success says the same. A Gaussian process with a
    Matern 5/2 kernel stands for it; the next query has the largest expected improvement among
    random candidates, the farthest from all that failed. Changes lie on the edge of the ball:
    of ``linf`` by their signs, of ``l2`` scaled to the radius.

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

        def solo(index: int, left: Callable[[], int]) -> Solo:
            del left  # one query at a time: it is stopped from outside
            rng = np.random.default_rng(problem.keys[index])
            return self._search(problem.images[index : index + 1], problem.threat, rng)

        each_alone(problem.oracle, len(problem.images), self.queries, solo)
        return Found(problem.oracle.best.astype(np.float32))

    def _search(self, original: Images, threat: Threat, rng: np.random.Generator) -> Solo:
        shape = original.shape[1:]
        size = min(self.frequencies, *shape[:2])
        dims = size * size * shape[2]
        known: Points = np.empty((0, dims))
        values: list[float] = []
        # The factor of the kernel matrix grows by a row with each point.
        factor = np.empty((0, 0))
        while True:
            drawn = rng.standard_normal((self.candidates, dims))
            drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
            choice = 0
            if len(known) >= self.starts:
                mean, deviation = posterior(known, np.array(values), factor, drawn)
                choice = int(expected_improvement(mean, deviation, max(values)).argmax())
            weights = drawn[choice].reshape(1, size, size, shape[2]).astype(np.float32)
            change = combined(weights, shape)
            fooled = yield from ask(_on_edge(original, change, threat)[0].astype(np.float64))
            factor = _grown(factor, known, drawn[choice])
            known = np.vstack([known, drawn[choice]])
            values.append(0.0 if fooled else -1.0)


def _on_edge(original: Images, change: npt.NDArray[np.float32], threat: Threat) -> Images:
    """The 8-bit image on the edge of the ball in the direction of a change, (1, h, w, c)."""
    if threat.norm == "linf":
        moved = original + threat.radius_255 * np.sign(change)
    else:
        moved = original + threat.radius_255 * change / max(
            float(np.linalg.norm(change)), 1e-12
        )
    return threat.quantise(moved.astype(np.float32), original)


# The median distance between two random directions in many dimensions.
_SCALE = float(np.sqrt(2))
_JITTER = 1e-6


def _kernel(first: Points, second: Points) -> npt.NDArray[np.float64]:
    """Matern 5/2 (Rasmussen and Williams 2006, equation 4.17) with variance 1."""
    squares = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1) - 2 * first @ second.T
    scaled = np.sqrt(5 * np.maximum(squares, 0)) / _SCALE
    return np.asarray((1 + scaled + scaled**2 / 3) * np.exp(-scaled))


def _grown(
    factor: npt.NDArray[np.float64], known: Points, added: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """The Cholesky factor of the kernel matrix with one more point, (m + 1, m + 1)."""
    from scipy.linalg import solve_triangular

    size = len(known)
    grown = np.zeros((size + 1, size + 1))
    grown[:size, :size] = factor
    if size:
        row = solve_triangular(factor, _kernel(known, added[None])[:, 0], lower=True)
        grown[size, :size] = row
    rest = 1 + _JITTER - float((grown[size, :size] ** 2).sum())
    grown[size, size] = np.sqrt(max(rest, _JITTER))
    return grown


def posterior(
    known: Points,
    values: npt.NDArray[np.float64],
    factor: npt.NDArray[np.float64],
    asked: Points,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return mean and standard deviation of the process at some points, (m,) each.

    Args:
        known: Points with a value, (k, d).
        values: Their values, (k,); the process' prior mean is their mean.
        factor: Cholesky factor of the kernel matrix of ``known``, (k, k).
        asked: (m, d).
    """
    from scipy.linalg import solve_triangular

    prior = float(values.mean())
    cross = solve_triangular(factor, _kernel(known, asked), lower=True)
    scaled = solve_triangular(factor, values - prior, lower=True)
    deviation = np.sqrt(np.maximum(1 - (cross**2).sum(axis=0), 0))
    return prior + cross.T @ scaled, deviation


def expected_improvement(
    mean: npt.NDArray[np.float64], deviation: npt.NDArray[np.float64], best: float
) -> npt.NDArray[np.float64]:
    """Return E[max(f - best, 0)] of normal values, (m,)."""
    from scipy.special import ndtr

    safe = np.maximum(deviation, 1e-12)
    z = (mean - best) / safe
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    return np.asarray(safe * (z * ndtr(z) + density))
