"""Maximum softmax probability (Hendrycks and Gimpel, ICLR 2017)."""

from dataclasses import dataclass

import numpy as np

from embedkit.detect.detector import detectors
from embedkit.detect.logits import Rule, checked_temperature, softmax
from embedkit.detect.vectors import Float64
from embedkit.types import Scores

__all__ = ["MSP"]


@detectors.register("msp")
@dataclass(frozen=True)
class MSP(Rule):
    """Minus the largest class probability of the head: score(x) = -max_c softmax(l / T)_c.

    The score lies in [-1, -1/c].

    Attributes:
        temperature: T, above 0.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        checked_temperature(self.temperature)

    def novelty(self, logits: Float64) -> Scores:
        """Return the score of each row of (n, c) logits, (n,)."""
        return np.asarray(-softmax(logits / self.temperature).max(axis=1))
