"""HopSkipJump: along the decision boundary, by decisions alone."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from embedkit.errors import InvalidInput
from embedkit.evaluate.attack import Found, Need, Problem, attacks
from embedkit.evaluate.measurement.victim.asking.boundary import (
    Point,
    ask,
    bisected,
    length,
    random_start,
)
from embedkit.evaluate.measurement.victim.asking.lanes import Flags, Solo, each_alone
from embedkit.types import Images

__all__ = ["HopSkipJump", "boundary_normal"]

# Probes are made, sent and summed in parts of this many, so that large images fit in memory.
_PART = 128
_HALVINGS = 12


@attacks.register("hop_skip_jump")
@dataclass(frozen=True)
class HopSkipJump:
    """HopSkipJump (Chen 2020): estimate the boundary's normal, jump, bisect back onto it.

    From noise that fools the victim, each round bisects to the boundary, estimates its normal
    from the decisions at random probes, and steps along it by distance / sqrt(round), halved
    until the victim is fooled. It approaches the original, and stops inside the threat.

    The paper's probes are shorter than a grey level and would be lost in 8-bit pixels: here
    they are Gaussian changes rounded to whole levels around a whole image, never shorter than
    ``deviation_255``, and the estimate sums what was really sent. One bisection ends within
    ``tolerance_255`` instead of the paper's much smaller share.

    Attributes:
        queries: Queries per image; the threat's limit caps them.
        first_probes: Probes of the first round; later ones have that times sqrt(round).
        most_probes: Never more than this.
        deviation_255: Standard deviation of a probe's values before rounding, in grey levels.
        tolerance_255: Length of the step at which a bisection ends, in grey levels.
        tries: Noise images asked about until one fools the victim.

    Raises:
        InvalidInput: If a setting is out of range.
    """

    queries: int = 1000
    first_probes: int = 100
    most_probes: int = 10_000
    deviation_255: float = 0.35
    tolerance_255: float = 0.5
    tries: int = 100

    needs: ClassVar[frozenset[Need]] = frozenset({"decisions"})
    norms: ClassVar[frozenset[str]] = frozenset({"linf", "l2"})

    def __post_init__(self) -> None:
        if min(self.first_probes, self.most_probes) < 2 or min(self.queries, self.tries) < 1:
            raise InvalidInput(
                "expected first_probes and most_probes >= 2, queries and tries >= 1, got "
                f"{self.first_probes}, {self.most_probes}, {self.queries}, {self.tries}"
            )
        if self.deviation_255 <= 0 or self.tolerance_255 <= 0:
            raise InvalidInput(
                "expected deviation_255 and tolerance_255 > 0, got "
                f"{self.deviation_255}, {self.tolerance_255}"
            )

    def run(self, problem: Problem) -> Found:
        """Approach each image until inside the threat, or until the queries are used."""
        if problem.oracle is None:
            raise InvalidInput("expected an oracle that answers with decisions, got none")

        def solo(index: int, left: Callable[[], int]) -> Solo:
            original = problem.images[index].astype(np.float64)
            rng = np.random.default_rng(problem.keys[index])
            return self._search(original, rng, problem.threat.norm, left)

        each_alone(problem.oracle, len(problem.images), self.queries, solo)
        return Found(problem.oracle.best.astype(np.float32))

    def _search(
        self,
        original: Point,
        rng: np.random.Generator,
        norm: str,
        left: Callable[[], int],
    ) -> Solo:
        outside = yield from random_start(original.shape, rng, self.tries)
        if outside is None:
            return
        point = yield from bisected(original, outside, norm, self.tolerance_255)
        number = 1
        while True:
            distance = length(point - original, norm)
            # A few queries are kept for the jump and the bisection that follow.
            afford = left() - 2 - int(np.log2(max(distance / self.tolerance_255, 1)) + 1)
            probes = min(int(self.first_probes * np.sqrt(number)), self.most_probes, afford)
            if probes < 2:
                return
            deviation = max(self.deviation_255, distance / original.size**1.5)
            normal = yield from boundary_normal(point, probes, deviation, rng)
            step = distance / np.sqrt(number)
            direction = np.sign(normal) if norm == "linf" else normal
            for _ in range(_HALVINGS):
                jumped = np.clip(point + step * direction, 0, 255)
                if (yield from ask(jumped)):
                    point = yield from bisected(original, jumped, norm, self.tolerance_255)
                    break
                step /= 2
            number += 1


def boundary_normal(
    point: Point, probes: int, deviation: float, rng: np.random.Generator
) -> Generator[Images, Flags, Point]:
    """Return the estimated normal of the boundary, of unit length, into the fooled side.

    The sum over probes u of (phi - mean phi) u, phi = 1 where the probe fools and else -1 (the
    paper's equations 9 and 16); with one decision for all, the mean probe with its sign.

    Args:
        point: On the boundary, (h, w, c).
        probes: Number of probes.
        deviation: Standard deviation of their values before rounding, in grey levels.
        rng: Draws them.
    """
    base = np.clip(np.rint(point), 0, 255)
    weighted, plain, total = np.zeros(base.shape), np.zeros(base.shape), 0
    for start in range(0, probes, _PART):
        count = min(_PART, probes - start)
        noise = rng.standard_normal((count, *base.shape), np.float32)
        images = np.clip(np.rint(base + deviation * noise), 0, 255).astype(np.uint8)
        signs = np.where((yield images), 1, -1)
        moves = images - base
        weighted += np.tensordot(signs.astype(np.float64), moves, axes=1)
        plain += moves.sum(axis=0)
        total += int(signs.sum())
    mean = total / probes
    normal = mean * plain if abs(mean) == 1 else weighted - mean * plain
    return np.asarray(normal / max(float(np.linalg.norm(normal)), 1e-12))
