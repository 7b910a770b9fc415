"""Auto-PGD on the cross-entropy of class scores."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from embedkit.evaluate.attack import Found, Need, Problem, attacks
from embedkit.evaluate.measurement.victim.climbing import auto_search, check_counts
from embedkit.evaluate.measurement.victim.losses import judge_of

__all__ = ["APGDCrossEntropy"]


@attacks.register("apgd_ce")
@dataclass(frozen=True)
class APGDCrossEntropy:
    """APGD-CE (Croce and Hein 2020): cross-entropy, with step sizes that adapt.

    The class scores of a kNN vote are its log votes; a linear head has its logits.

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
            [partial(judge_of, problem, loss="cross_entropy")],
            steps=self.steps,
            restarts=self.restarts,
            batch=self.batch,
        )
