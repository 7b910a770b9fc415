"""Auto-PGD on the cross-entropy of class scores."""

from dataclasses import dataclass
from functools import partial

from embedkit.evaluate.attack import Found, Problem, attacks
from embedkit.evaluate.measurement.victim.climbing import AutoClimb
from embedkit.evaluate.measurement.victim.losses import judge_of

__all__ = ["APGDCrossEntropy"]


@attacks.register("apgd_ce")
@dataclass(frozen=True)
class APGDCrossEntropy(AutoClimb):
    """APGD-CE (Croce and Hein 2020): cross-entropy, with step sizes that adapt.

    The class scores of a kNN vote are its log votes; a linear head has its logits.
    """

    def run(self, problem: Problem) -> Found:
        """Climb on the surrogate, batch by batch."""
        return self.climb(problem, partial(judge_of, problem, loss="cross_entropy"))
