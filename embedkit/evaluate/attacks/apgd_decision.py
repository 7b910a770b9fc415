"""Auto-PGD on the margin of whatever the victim decides."""

from dataclasses import dataclass
from functools import partial

from embedkit.evaluate.attack import Found, Problem, attacks
from embedkit.evaluate.measurement.victim.climbing import AutoClimb
from embedkit.evaluate.measurement.victim.losses import judge_of

__all__ = ["APGDDecision"]


@attacks.register("apgd_decision")
@dataclass(frozen=True)
class APGDDecision(AutoClimb):
    """Auto-PGD on the head's own margin: a vote, a search result, known or novel.

    Against a search it pushes an image's own neighbours out of the first k; against an OOD
    decision it takes a known image out of what is known (induction) or a novel one into it
    (evasion).
    """

    def run(self, problem: Problem) -> Found:
        """Climb on the surrogate, batch by batch."""
        return self.climb(problem, partial(judge_of, problem, loss="decision"))
