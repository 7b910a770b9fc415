"""Auto-PGD on the margin of whatever the victim decides."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from embedkit.evaluate.attack import Found, Need, Problem, attacks
from embedkit.evaluate.measurement.victim.climbing import auto_search, check_counts
from embedkit.evaluate.measurement.victim.losses import judge_of

__all__ = ["APGDDecision"]


@attacks.register("apgd_decision")
@dataclass(frozen=True)
class APGDDecision:
    """Auto-PGD on the head's own margin: a vote, a search result, known or novel.

    Against a search it pushes an image's own neighbours out of the first k; against an OOD
    decision it takes a known image out of what is known (induction) or a novel one into it
    (evasion).

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
            [partial(judge_of, problem, loss="decision")],
            steps=self.steps,
            restarts=self.restarts,
            batch=self.batch,
        )
