"""Auto-PGD away from an image's own embedding."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from torch import Tensor

from embedkit.evaluate.attack import Found, Problem, attacks
from embedkit.evaluate.measurement.victim.climbing import AutoClimb
from embedkit.evaluate.measurement.victim.losses import Judged, PixelJudge, judge_of

__all__ = ["FeatureAway"]


@attacks.register("feature_away")
@dataclass(frozen=True)
class FeatureAway(AutoClimb):
    """Untargeted attack on the embedding itself: as far from the clean one as the ball allows.

    It maximises 1 - cos(f(x + delta), f(x)) and needs no labels, so it harms every use of the
    embedding at once (Kowalczuk et al. 2024); the start is random because the gradient at the
    image is zero.
    """

    def run(self, problem: Problem) -> Found:
        """Climb on the surrogate, batch by batch."""
        return self.climb(problem, partial(_away, problem))


def _away(problem: Problem, rows: npt.NDArray[np.int64]) -> PixelJudge:
    """The distance alone: the search goes on where the decision has turned already."""
    judge = judge_of(problem, rows, "cosine")

    def distance(pixels: Tensor) -> Judged:
        values, margins = judge(pixels)
        return Judged(values, margins.fill_(1.0))

    return distance
