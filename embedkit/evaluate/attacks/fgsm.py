"""Fast gradient sign method: one step, on the differentiable twin."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from embedkit.errors import InvalidInput
from embedkit.evaluate.attack import Found, Need, Problem, attacks
from embedkit.evaluate.measurement.victim.climbing import found_by, random_starts
from embedkit.evaluate.measurement.victim.losses import (
    LOSSES,
    LossName,
    PixelJudge,
    batches,
    judge_of,
    unit_pixels,
)
from embedkit.perturb.gradient import (
    Ascent,
    Norm,
    into_ball,
    lengths_of,
    steepest,
    value_and_gradient,
)

__all__ = ["FGSM"]


@attacks.register("fgsm")
@dataclass(frozen=True)
class FGSM:
    """FGSM (Goodfellow 2015): one step as long as the radius, x + radius * sign(gradient).

    It is a baseline, not a measure of robustness: models that only bend the loss around the
    images withstand one step and no more. Under ``l2`` the step goes along the gradient.

    Attributes:
        loss: As for ``pgd``. ``cosine`` has no gradient at the clean image, so that the step
            starts at a random place, half of the radius away at most.
        batch: Images per forward pass.

    Raises:
        InvalidInput: If a setting is out of range.
    """

    loss: LossName = "decision"
    batch: int = 256

    is_random: ClassVar[bool] = False
    needs: ClassVar[frozenset[Need]] = frozenset({"gradient"})
    norms: ClassVar[frozenset[str]] = frozenset({"linf", "l2"})

    def __post_init__(self) -> None:
        if self.loss not in LOSSES or self.batch < 1:
            raise InvalidInput(
                f"expected the loss {' or '.join(LOSSES)} and batch >= 1, got {self.loss!r} "
                f"and {self.batch}"
            )

    def run(self, problem: Problem) -> Found:
        """Step once, batch by batch."""
        norm, radius = problem.threat.norm, problem.threat.radius_255 / 255
        assert norm != "patch"
        parts = []
        for rows in batches(len(problem.images), self.batch):
            images = unit_pixels(problem, rows)
            judge = judge_of(problem, rows, self.loss)
            start = torch.zeros_like(images)
            if self.loss == "cosine":
                start = random_starts(problem.keys[rows], 0, images, norm, radius / 2)
            parts.append(_one_step(judge, images, start, norm, radius))
        return found_by(parts)


def _one_step(
    judge: PixelJudge, images: Tensor, start: Tensor, norm: Norm, radius: float
) -> Ascent:
    pixels = into_ball(images, start, norm, radius)
    values, gradient = value_and_gradient(lambda given: judge(given).values, pixels)
    moved = pixels + radius * steepest(gradient, norm) - images
    return Ascent(into_ball(images, moved, norm, radius), values, lengths_of(gradient))
