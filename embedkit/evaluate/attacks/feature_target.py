"""Auto-PGD towards the embedding of another image."""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from embedkit.errors import InvalidInput
from embedkit.evaluate.attack import Found, Problem, attacks
from embedkit.evaluate.measurement.victim.climbing import AutoClimb
from embedkit.evaluate.measurement.victim.losses import (
    Judged,
    PixelJudge,
    surrogate_of,
)
from embedkit.evaluate.measurement.victim.vote import KnnHead
from embedkit.perturb.randomness import uniforms
from embedkit.types import Embeddings

__all__ = ["FeatureTarget"]


@attacks.register("feature_target")
@dataclass(frozen=True)
class FeatureTarget(AutoClimb):
    """Targeted attack on the embedding: as near to another image's as the ball allows.

    The guide image (Sabour et al. 2016) is a training image of another class where the victim
    is a kNN vote, else another attacked image.

    Attributes:
        guide: ``nearest`` or a ``random`` one.

    Raises:
        InvalidInput: If a setting is out of range, or there is no other image.
    """

    guide: Literal["nearest", "random"] = "nearest"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.guide not in ("nearest", "random"):
            raise InvalidInput(f"expected the guide 'nearest' or 'random', got {self.guide!r}")

    def run(self, problem: Problem) -> Found:
        """Climb on the surrogate, batch by batch."""
        guides = torch.tensor(self._guides(problem))
        return self.climb(problem, partial(_towards, problem, guides))

    def _guides(self, problem: Problem) -> Embeddings:
        """Embedding that each image is to take, (n, d)."""
        clean = surrogate_of(problem).embed(problem.images)
        if isinstance(problem.head, KnnHead):
            every = problem.head.bank
            forbidden = problem.head.bank_labels[None] == problem.head.labels[:, None]
        else:
            every, forbidden = clean, np.eye(len(clean), dtype=bool)
        if forbidden.all(axis=1).any():
            raise InvalidInput("expected another image to be the guide, got none")
        order = clean @ every.T
        if self.guide == "random":
            order = uniforms(problem.keys, 2, len(every)).astype(np.float32)
        chosen: Embeddings = every[np.where(forbidden, -np.inf, order).argmax(axis=1)]
        return chosen


def _towards(problem: Problem, guides: Tensor, rows: npt.NDArray[np.int64]) -> PixelJudge:
    surrogate = surrogate_of(problem)
    wanted = guides[rows].to(surrogate.encoder.mean.device)

    def near(pixels: Tensor) -> Judged:
        values = cosine_similarity(surrogate.embed_pixels(pixels), wanted, dim=1)
        # The nearest to the guide is looked for, whatever is decided on the way.
        return Judged(values, torch.ones_like(values))

    return near
