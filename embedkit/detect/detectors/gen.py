"""Generalised entropy of the class probabilities (Liu, Lochman and Zach, CVPR 2023)."""

from dataclasses import dataclass

import numpy as np

from embedkit.detect.detector import detectors
from embedkit.detect.logits import Rule, softmax
from embedkit.detect.vectors import Float64
from embedkit.errors import InvalidInput
from embedkit.types import Scores

__all__ = ["GEN"]


@detectors.register("gen")
@dataclass(frozen=True)
class GEN(Rule):
    """Generalised entropy: score(x) = sum over the M largest p_c of p_c^g (1 - p_c)^g.

    A small g weighs the many small probabilities as much as the few large ones.

    Attributes:
        gamma: g, in (0, 1).
        top: M, at least 1; at most all classes count.
    """

    gamma: float = 0.1
    top: int = 100

    def __post_init__(self) -> None:
        if not (0 < self.gamma < 1 and self.top >= 1):
            raise InvalidInput(
                f"expected gamma in (0, 1) and top >= 1, got {self.gamma} and {self.top}"
            )

    def novelty(self, logits: Float64) -> Scores:
        """Return the score of each row of (n, c) logits, (n,)."""
        p = np.sort(softmax(logits), axis=1)[:, -self.top :]
        # 1 - p of a certain class may round below 0.
        return np.asarray(((p * np.clip(1 - p, 0, None)) ** self.gamma).sum(axis=1))
