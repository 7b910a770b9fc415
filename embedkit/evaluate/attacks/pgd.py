"""Projected gradient descent on the differentiable twin."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch

from embedkit.errors import InvalidInput
from embedkit.evaluate.attack import Found, Need, Problem, attacks
from embedkit.evaluate.measurement.victim.climbing import found_by, random_starts
from embedkit.evaluate.measurement.victim.losses import (
    LOSSES,
    LossName,
    batches,
    judge_of,
    unit_pixels,
)
from embedkit.perturb.gradient import Ascent, Rule, Schedule, ascend

__all__ = ["PGD"]


@attacks.register("pgd")
@dataclass(frozen=True)
class PGD:
    """White-box PGD (Madry 2018); the best iterate is kept.

    The start is random unless said otherwise: at the clean image the distance to its own
    embedding has a zero gradient, and a search from there never moves.

    Attributes:
        steps: Gradient steps per start.
        loss: ``cosine`` moves away from the image's own clean embedding and needs no labels;
            ``decision`` lowers the margin of whatever the victim decides; ``cross_entropy`` and
            ``dlr`` are losses of its class scores.
        relative_step: Step over radius; 0 chooses 2.5 / steps.
        rule: ``steepest`` or ``momentum``.
        restarts: Independent starts; the best over all is kept.
        batch: Images that climb together.
        start: ``random`` in the ball, or ``clean``, which makes the search deterministic.
        keep: The ``best`` iterate, or the ``last`` one, as other implementations have it.

    Raises:
        InvalidInput: If the steps cannot cross the ball (steps * relative_step < 2, or 1 from
            the clean image), which makes an attack that looks strong and is not.
    """

    steps: int = 40
    loss: LossName = "cosine"
    relative_step: float = 0.0
    rule: Rule = "steepest"
    restarts: int = 1
    batch: int = 256
    start: Literal["random", "clean"] = "random"
    keep: Literal["best", "last"] = "best"

    needs: ClassVar[frozenset[Need]] = frozenset({"gradient"})
    norms: ClassVar[frozenset[str]] = frozenset({"linf", "l2"})

    def __post_init__(self) -> None:
        if self.steps < 1 or self.restarts < 1 or self.batch < 1:
            raise InvalidInput(
                f"expected steps, restarts and batch >= 1, got {self.steps}, {self.restarts}, "
                f"{self.batch}"
            )
        if self.loss not in LOSSES:
            raise InvalidInput(f"expected the loss {' or '.join(LOSSES)}, got {self.loss!r}")
        if self.rule not in ("steepest", "momentum"):
            raise InvalidInput(f"expected the rule 'steepest' or 'momentum', got {self.rule!r}")
        if self.start not in ("random", "clean") or self.keep not in ("best", "last"):
            raise InvalidInput(
                "expected the start 'random' or 'clean' and keep 'best' or 'last', got "
                f"{self.start!r} and {self.keep!r}"
            )
        if self.start == "clean" and (self.loss == "cosine" or self.restarts > 1):
            raise InvalidInput(
                "expected a random start for the loss 'cosine' and for restarts, got a clean "
                "one: there is no gradient, and every start is the same"
            )
        reach = 2 if self.start == "random" else 1
        if self.steps * self._relative_step < reach:
            raise InvalidInput(
                f"expected steps * relative_step >= {reach} so that the search can cross the "
                f"ball, got {self.steps} * {self._relative_step}"
            )

    def run(self, problem: Problem) -> Found:
        """Climb on the surrogate, batch by batch."""
        return found_by(
            self._climb(problem, rows) for rows in batches(len(problem.images), self.batch)
        )

    def _climb(self, problem: Problem, rows: npt.NDArray[np.int64]) -> Ascent:
        """The best iterate over all restarts, for the images of one batch."""
        images = unit_pixels(problem, rows)
        norm, radius = problem.threat.norm, problem.threat.radius_255 / 255
        assert norm != "patch"
        schedule = Schedule(self.steps, self._relative_step * radius, self.rule, keep=self.keep)
        judge = judge_of(problem, rows, self.loss)
        best: Ascent | None = None
        for restart in range(self.restarts):
            start = torch.zeros_like(images)
            if self.start == "random":
                start = random_starts(problem.keys[rows], restart, images, norm, radius)
            found = ascend(
                lambda pixels: judge(pixels).values, images, start, norm, radius, schedule
            )
            best = found if best is None else best.better(found)
        assert best is not None
        return best

    @property
    def _relative_step(self) -> float:
        return self.relative_step or 2.5 / self.steps
