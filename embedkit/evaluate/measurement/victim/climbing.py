"""What the white-box attacks share: starts keyed by image, and their results as candidates."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embedkit.errors import InvalidInput
from embedkit.evaluate.attack import Found, Need, Problem
from embedkit.evaluate.measurement.victim.losses import (
    PixelJudge,
    batches,
    unit_pixels,
)
from embedkit.perturb.auto import auto_ascend
from embedkit.perturb.gradient import Ascent, Norm, random_start
from embedkit.perturb.randomness import Keys

__all__ = ["AutoClimb", "ball_of", "check_counts", "found_by", "random_starts"]

Rows = npt.NDArray[np.int64]


def random_starts(
    keys: Keys, restart: int, images: Tensor, norm: Norm, radius: float
) -> Tensor:
    """One random start per image, from its own key, so that batches do not matter.

    Args:
        keys: One per image, (b,).
        restart: Number of the restart.
        images: Clean pixels, (b, c, h, w) in [0, 1].
        norm: Norm of the ball.
        radius: In pixel units of [0, 1].
    """
    starts = []
    for key in keys:
        generator = torch.Generator().manual_seed((int(key) + restart) % 2**63)
        starts.append(random_start((1, *images.shape[1:]), norm, radius, generator))
    return torch.cat(starts).to(images)


def found_by(parts: Iterable[Ascent]) -> Found:
    """Return what the searches of all batches found, as an attack returns it."""
    ascents = list(parts)
    pixels = [a.pixels.permute(0, 2, 3, 1).cpu().numpy() for a in ascents]
    norms = [a.gradient_norms.double().cpu().numpy() for a in ascents]
    return Found(np.concatenate(pixels) * 255, np.concatenate(norms))


def ball_of(problem: Problem) -> tuple[Norm, float]:
    """Norm and radius of a problem's ball, in pixel units of [0, 1].

    Raises:
        InvalidInput: If the threat is a patch.
    """
    threat = problem.threat
    if threat.norm == "patch":
        raise InvalidInput("expected the norm linf or l2, got a patch")
    return threat.norm, threat.radius_255 / 255


def check_counts(**counts: int) -> None:
    """Refuse settings below 1.

    Raises:
        InvalidInput: Names them all.
    """
    if min(counts.values()) < 1:
        names, values = ", ".join(counts), ", ".join(map(str, counts.values()))
        raise InvalidInput(f"expected {names} >= 1, got {values}")


@dataclass(frozen=True)
class AutoClimb:
    """What attacks that climb with Auto-PGD have in common: how long, how often, how many.

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

    def climb(self, problem: Problem, *judges: Callable[[Rows], PixelJudge]) -> Found:
        """Climb batch by batch under several losses in turn, each on what the last ones left.

        An image that the twin is fooled by is not searched for again; of the others the search
        with the largest loss counts, or the last one where losses differ.

        Args:
            problem: With a surrogate; linf or l2.
            judges: From the rows of a batch to their loss; at least one.
        """
        parts = [
            self._climbed(problem, judges, r) for r in batches(len(problem.images), self.batch)
        ]
        return found_by(parts)

    def _climbed(
        self, problem: Problem, judges: Sequence[Callable[[Rows], PixelJudge]], rows: Rows
    ) -> Ascent:
        norm, radius = ball_of(problem)
        best: Ascent | None = None
        for number in range(self.restarts * len(judges)):
            left = np.arange(len(rows))
            if best is not None:
                left = np.flatnonzero((best.margins_or_inf > 0).cpu().numpy())
            if not len(left):
                break
            images = unit_pixels(problem, rows[left])
            start = random_starts(problem.keys[rows[left]], number, images, norm, radius)
            judge = judges[number // self.restarts](rows[left])
            found = auto_ascend(judge, images, start, norm, radius, self.steps)
            is_new_loss = number % self.restarts == 0
            best = found if best is None else _merged(best, found, left, is_new_loss)
        assert best is not None
        return best


def _merged(best: Ascent, found: Ascent, left: Rows, is_new_loss: bool) -> Ascent:
    """Put better results in their places; values of different losses cannot be compared."""
    places = torch.tensor(left, device=best.values.device)
    margins = found.margins_or_inf
    better = (margins <= 0) | is_new_loss | (found.values > best.values[places])
    taken = places[better]
    pixels, values, norms = (t.clone() for t in (best.pixels, best.values, best.gradient_norms))
    every = best.margins_or_inf.clone()
    pixels[taken], values[taken] = found.pixels[better], found.values[better]
    every[taken] = margins[better]
    norms[places] = torch.maximum(norms[places], found.gradient_norms)
    return replace(best, pixels=pixels, values=values, gradient_norms=norms, margins=every)
