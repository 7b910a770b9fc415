"""A square of free pixels, placed where it harms most, on the differentiable twin."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embedkit.errors import InvalidInput
from embedkit.evaluate.attack import Found, Need, Problem, attacks
from embedkit.evaluate.measurement.victim.climbing import (
    check_counts,
    found_by,
    random_starts,
)
from embedkit.evaluate.measurement.victim.losses import (
    LOSSES,
    Judged,
    LossName,
    PixelJudge,
    batches,
    judge_of,
    unit_pixels,
)
from embedkit.evaluate.threat import window_sums
from embedkit.perturb.auto import auto_ascend
from embedkit.perturb.gradient import Ascent, value_and_gradient
from embedkit.perturb.randomness import uniforms

__all__ = ["Patch"]


@attacks.register("patch")
@dataclass(frozen=True)
class Patch:
    """Auto-PGD on the values of one square per image (adversarial patch, Brown et al. 2017).

    The first place is where the gradient at the image has most of its mass, the others are
    random; each is filled anew, and the best counts.

    Attributes:
        places: Places that are tried for each image.
        steps: Gradient steps per place.
        loss: As for ``pgd``.
        batch: Images that climb together.

    Raises:
        InvalidInput: If a setting is out of range.
    """

    places: int = 4
    steps: int = 40
    loss: LossName = "decision"
    batch: int = 256

    needs: ClassVar[frozenset[Need]] = frozenset({"gradient"})
    norms: ClassVar[frozenset[str]] = frozenset({"patch"})

    def __post_init__(self) -> None:
        check_counts(places=self.places, steps=self.steps, batch=self.batch)
        if self.loss not in LOSSES:
            raise InvalidInput(f"expected the loss {' or '.join(LOSSES)}, got {self.loss!r}")

    def run(self, problem: Problem) -> Found:
        """Fill squares on the surrogate, batch by batch."""
        return found_by(
            self._fill(problem, rows) for rows in batches(len(problem.images), self.batch)
        )

    def _fill(self, problem: Problem, rows: npt.NDArray[np.int64]) -> Ascent:
        images, judge = unit_pixels(problem, rows), judge_of(problem, rows, self.loss)
        side = min(problem.threat.side_px, *images.shape[2:])
        keys, best = problem.keys[rows], None
        for place in range(self.places):
            if place == 0:
                mask = _windows(_heaviest(judge, images, side), side, images)
            else:
                mask = _windows(_drawn(uniforms(keys, place, 2), side, images), side, images)
            start = random_starts(keys, place, images, "linf", 1.0)

            def covered(pixels: Tensor, mask: Tensor = mask) -> Judged:
                return judge(torch.where(mask, pixels, images))

            found = auto_ascend(covered, images, start, "linf", 1.0, self.steps)
            pixels = torch.where(mask, found.pixels, images)
            here = Ascent(pixels, found.values, found.gradient_norms, found.margins)
            best = here if best is None else _better(best, here)
        assert best is not None
        return best


def _heaviest(judge: PixelJudge, images: Tensor, side: int) -> npt.NDArray[np.int64]:
    """Row and column of the window with the largest gradient, (b, 2)."""
    _, gradient = value_and_gradient(lambda pixels: judge(pixels).values, images)
    mass = window_sums(gradient.abs().sum(dim=1).double().cpu().numpy(), side)
    found = np.unravel_index(mass.reshape(len(mass), -1).argmax(axis=1), mass.shape[1:])
    return np.stack(found, axis=1)


def _drawn(draws: npt.NDArray[np.float64], side: int, images: Tensor) -> npt.NDArray[np.int64]:
    """Row and column of a random window of each image, (b, 2)."""
    room = np.array(images.shape[2:]) - side + 1
    return np.asarray(draws * room, dtype=np.int64)


def _windows(corners: npt.NDArray[np.int64], side: int, images: Tensor) -> Tensor:
    """Mask of the window of each image, (b, 1, h, w)."""
    height, width = images.shape[2:]
    top, left = (torch.tensor(corners[:, i], device=images.device)[:, None] for i in (0, 1))
    rows, columns = (torch.arange(n, device=images.device) for n in (height, width))
    tall = (rows >= top) & (rows < top + side)
    wide = (columns >= left) & (columns < left + side)
    return (tall[:, :, None] & wide[:, None, :])[:, None]


def _better(first: Ascent, second: Ascent) -> Ascent:
    """The one that fools the twin by more, image by image; else the one with more loss."""
    old, new = first.margins_or_inf, second.margins_or_inf
    take = torch.where(new.minimum(old) <= 0, new < old, second.values > first.values)
    wide = take[:, None, None, None]
    return Ascent(
        torch.where(wide, second.pixels, first.pixels),
        torch.where(take, second.values, first.values),
        torch.maximum(first.gradient_norms, second.gradient_norms),
        torch.where(take, new, old),
    )
