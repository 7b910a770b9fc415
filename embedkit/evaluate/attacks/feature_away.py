"""Auto-PGD away from an image's own embedding."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from embedkit.evaluate.attack import Found, Need, Problem, attacks
from embedkit.evaluate.measurement.victim.climbing import auto_search, check_counts
from embedkit.evaluate.measurement.victim.losses import Judged, PixelJudge, judge_of

__all__ = ["FeatureAway"]


@attacks.register("feature_away")
@dataclass(frozen=True)
class FeatureAway:
    """Untargeted attack on the embedding itself: as far from the clean one as the ball allows.

    It maximises 1 - cos(f(x + delta), f(x)) and needs no labels, so it harms every use of the
    embedding at once (Kowalczuk et al. 2024); the start is random because the gradient at the
    image is zero.

    Attributes:
        steps: Gradient steps per start.
        restarts: Independent starts, each for the images that are still standing on the twin.
        batch: Images that climb together.

    Raises:
        InvalidInput: If a setting is below 1.
    """

    steps: int = 100
    restarts: int = 1
    batch: int = 256

    needs: ClassVar[frozenset[Need]] = frozenset({"gradient"})
    norms: ClassVar[frozenset[str]] = frozenset({"linf", "l2"})

    def __post_init__(self) -> None:
        check_counts(steps=self.steps, restarts=self.restarts, batch=self.batch)

    def run(self, problem: Problem) -> Found:
        """Climb on the surrogate, batch by batch."""
        return auto_search(
            problem,
            [partial(_away, problem)],
            steps=self.steps,
            restarts=self.restarts,
            batch=self.batch,
        )


def _away(problem: Problem, rows: npt.NDArray[np.int64]) -> PixelJudge:
    """The distance alone: the search goes on where the decision has turned already."""
    judge = judge_of(problem, rows, "cosine")

    def distance(pixels: Tensor) -> Judged:
        values, margins = judge(pixels)
        return Judged(values, margins.fill_(1.0))

    return distance
