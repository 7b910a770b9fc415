"""Auto-PGD on the difference of logits ratio, untargeted or towards each other class."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from embedkit.errors import InvalidInput
from embedkit.evaluate.attack import Found, Problem, attacks
from embedkit.evaluate.measurement.victim.climbing import AutoClimb
from embedkit.evaluate.measurement.victim.logits import (
    class_logits,
    class_margins,
    labels_of,
    targeted_dlr,
)
from embedkit.evaluate.measurement.victim.losses import (
    Judged,
    PixelJudge,
    judge_of,
    surrogate_of,
    unit_pixels,
)

__all__ = ["APGDDifferenceOfLogits"]


@attacks.register("apgd_dlr")
@dataclass(frozen=True)
class APGDDifferenceOfLogits(AutoClimb):
    """APGD-DLR (Croce and Hein 2020): a loss that no scaling of the logits can flatten.

    Attributes:
        targets: Classes that are aimed at one after another, the likeliest first, as in
            AutoAttack (9 there); at most one less than there are. 0 is the untargeted loss.

    Raises:
        InvalidInput: If a setting is out of range, or there are fewer than 3 classes, 4 for
            targets.
    """

    targets: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.targets < 0:
            raise InvalidInput(f"expected targets >= 0, got {self.targets}")

    def run(self, problem: Problem) -> Found:
        """Climb on the surrogate, batch by batch."""
        classes = _clean_logits(problem, np.arange(1)).shape[1]
        least = 4 if self.targets else 3
        if classes < least:
            raise InvalidInput(
                f"expected at least {least} classes for this loss, got {classes}; take apgd_ce"
            )
        judges: list[Callable[[npt.NDArray[np.int64]], PixelJudge]] = [
            partial(judge_of, problem, loss="dlr")
        ]
        if self.targets:
            ranks = range(min(self.targets, classes - 1))
            judges = [partial(_towards, problem, rank) for rank in ranks]
        return self.climb(problem, *judges)


def _towards(problem: Problem, rank: int, rows: npt.NDArray[np.int64]) -> PixelJudge:
    """The targeted loss towards the other class of this rank at the clean image, from 0."""
    surrogate = surrogate_of(problem)
    device = surrogate.encoder.mean.device
    logits_of = class_logits(problem.head, device)
    labels = torch.tensor(labels_of(problem.head)[rows], device=device)
    others = _clean_logits(problem, rows).scatter(1, labels[:, None], -torch.inf)
    targets = others.sort(dim=1, descending=True, stable=True).indices[:, rank]

    def judge(pixels: torch.Tensor) -> Judged:
        logits, deciding = logits_of(surrogate.embed_pixels(pixels))
        return Judged(targeted_dlr(logits, labels, targets), class_margins(deciding, labels))

    return judge


def _clean_logits(problem: Problem, rows: npt.NDArray[np.int64]) -> torch.Tensor:
    surrogate = surrogate_of(problem)
    logits_of = class_logits(problem.head, surrogate.encoder.mean.device)
    with torch.no_grad():
        return logits_of(surrogate.embed_pixels(unit_pixels(problem, rows)))[0]
