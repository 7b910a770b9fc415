"""Maximum softmax probability (Hendrycks and Gimpel, ICLR 2017)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.detect.detector import Observation, detectors
from embedkit.detect.logits import (
    FittedRule,
    checked_temperature,
    fit_rule,
    restore_rule,
    softmax,
)
from embedkit.detect.vectors import Float64
from embedkit.types import Scores

__all__ = ["MSP"]


@detectors.register("msp")
@dataclass(frozen=True)
class MSP:
    """Minus the largest class probability of the head: score(x) = -max_c softmax(l / T)_c.

    The score lies in [-1, -1/c].

    Attributes:
        temperature: T, above 0.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        checked_temperature(self.temperature)

    @property
    def needs(self) -> frozenset[str]:
        """The logits alone."""
        return frozenset({"logits"})

    def fit(self, observation: Observation) -> FittedRule:
        """Take the number of classes; there is nothing else to learn.

        Raises:
            InvalidInput: If there are no logits.
        """
        return fit_rule(self, observation)

    def restore(self, state: Mapping[str, npt.NDArray[np.generic]]) -> FittedRule:
        """Return the detector that gave ``state``."""
        return restore_rule(MSP, state)

    def novelty(self, logits: Float64) -> Scores:
        """Return the score of each row of (n, c) logits, (n,)."""
        return np.asarray(-softmax(logits / self.temperature).max(axis=1))
