"""NES: projected gradient descent on a gradient estimated from score queries."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput
from embedkit.evaluate.attack import Found, Need, Problem, attacks
from embedkit.evaluate.measurement.victim.asking.lanes import Search, drive, lanes_of
from embedkit.evaluate.oracle import Indices
from embedkit.evaluate.threat import Candidates, Threat
from embedkit.types import Images, Scores

__all__ = ["NES", "estimated"]


@attacks.register("nes")
@dataclass(frozen=True)
class NES:
    """Natural evolution strategies (Ilyas 2018): antithetic Gaussian probes, then a PGD step.

    The gradient of the margin at x is estimated as the mean over ``pairs`` of
    (L(x + s u) - L(x - s u)) u / (2 s). The paper's s of 0.001 would be lost in 8-bit pixels:
    probes are rounded, so s is a grey level and more. A probe inside the ball that fools the
    victim counts. The query limit is never passed: the last estimate takes the pairs left.

    Attributes:
        queries: Queries per image; the threat's limit caps them.
        pairs: Antithetic pairs per step.
        deviation_255: Standard deviation s of the probes, in grey levels.
        relative_step: Step over radius.
        momentum: Share of the last estimate in the next, in [0, 1).

    Raises:
        InvalidInput: If a setting is out of range.
    """

    queries: int = 1000
    pairs: int = 10
    deviation_255: float = 2.0
    relative_step: float = 0.25
    momentum: float = 0.75

    needs: ClassVar[frozenset[Need]] = frozenset({"scores"})
    norms: ClassVar[frozenset[str]] = frozenset({"linf", "l2"})

    def __post_init__(self) -> None:
        if self.queries < 1 or self.pairs < 1 or not 0 <= self.momentum < 1:
            raise InvalidInput(
                "expected queries and pairs >= 1 and momentum in [0, 1), got "
                f"{self.queries}, {self.pairs}, {self.momentum}"
            )
        if self.deviation_255 <= 0 or self.relative_step <= 0:
            raise InvalidInput(
                "expected deviation_255 and relative_step > 0, got "
                f"{self.deviation_255}, {self.relative_step}"
            )

    def run(self, problem: Problem) -> Found:
        """Descend until every image is fooled or the queries are used."""
        oracle = problem.oracle
        if oracle is None:
            raise InvalidInput("expected an oracle that answers with scores, got none")
        lanes = lanes_of(len(problem.images))
        drive(oracle.margins, [self._search(problem, rows) for rows in lanes])
        return Found(oracle.best.astype(np.float32))

    def _search(self, problem: Problem, lane: Indices) -> Search:
        oracle, threat = problem.oracle, problem.threat
        assert oracle is not None
        limit = threat.query_limit
        left = self.queries if limit is None else min(self.queries, limit)
        rngs = [np.random.default_rng(key) for key in problem.keys[lane]]
        current = problem.images[lane].astype(np.float32)
        slope = np.zeros_like(current)
        standing = np.arange(len(lane))
        while left > 0:
            pairs = min(self.pairs, max((left - 1) // 2, 0))
            rows = lane[standing]
            if pairs:
                probes = _probes([rngs[i] for i in standing], pairs, current.shape[1:])
                images, owners = _asked(current[standing], probes, self.deviation_255, rows)
                answers = yield images, owners
                both = answers.reshape(len(rows), 2, pairs)
                found = estimated(both[:, 0], both[:, 1], probes, self.deviation_255)
                slope[standing] = self.momentum * slope[standing] + (1 - self.momentum) * found
                current[standing] = self._stepped(
                    current[standing], slope[standing], problem.images[rows], threat
                )
            yield threat.quantise(current[standing], problem.images[rows]), rows
            left -= 2 * pairs + 1
            standing = standing[oracle.first_success[rows] == 0]
            if not len(standing) or not pairs:
                return

    def _stepped(
        self, current: Candidates, slope: Candidates, originals: Images, threat: Threat
    ) -> Candidates:
        """One step down the slope, back inside the ball."""
        step = self.relative_step * threat.radius_255
        if threat.norm == "linf":
            moved = current - step * np.sign(slope)
        else:
            lengths = np.sqrt((slope**2).sum(axis=(1, 2, 3), keepdims=True))
            moved = current - step * slope / np.maximum(lengths, 1e-12)
        return threat.project(moved.astype(np.float32), originals)


def _probes(
    rngs: list[np.random.Generator], pairs: int, shape: tuple[int, ...]
) -> npt.NDArray[np.float32]:
    """Standard normal directions, (n, pairs, h, w, c), of each image's own generator."""
    return np.stack([rng.standard_normal((pairs, *shape), np.float32) for rng in rngs])


def _asked(
    current: Candidates, probes: npt.NDArray[np.float32], deviation: float, rows: Indices
) -> tuple[Images, Indices]:
    """Both sides of every probe as 8-bit images, (n * 2 * pairs, h, w, c), and their owners."""
    moves = deviation * probes
    both = np.stack([current[:, None] + moves, current[:, None] - moves], axis=1)
    np.rint(both, out=both)
    np.clip(both, 0, 255, out=both)
    images = both.astype(np.uint8)
    return images.reshape(-1, *current.shape[1:]), np.repeat(rows, 2 * probes.shape[1])


def estimated(
    plus: Scores, minus: Scores, probes: npt.NDArray[np.float32], deviation: float
) -> Candidates:
    """Return the antithetic estimate of the gradient, (n, h, w, c) per grey level.

    Args:
        plus: Margins at x + s u, (n, pairs).
        minus: Margins at x - s u, (n, pairs).
        probes: The directions u, standard normal, (n, pairs, h, w, c).
        deviation: s, in grey levels.
    """
    weights = (plus - minus) / (2 * deviation * plus.shape[1])
    return np.asarray(np.einsum("np,nphwc->nhwc", weights, probes), np.float32)
