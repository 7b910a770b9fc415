"""Free energy of the logits (Liu, Wang, Owens and Li, NeurIPS 2020)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.detect.detector import Observation, detectors
from embedkit.detect.logits import (
    FittedRule,
    checked_temperature,
    fit_rule,
    log_sum_exp,
    restore_rule,
)
from embedkit.detect.vectors import Float64
from embedkit.types import Scores

__all__ = ["Energy"]


@detectors.register("energy")
@dataclass(frozen=True)
class Energy:
    """Energy of an image under the head: score(x) = -T log sum_c exp(l_c / T).

    In the unit of the logits, of any sign.

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
        return restore_rule(Energy, state)

    def novelty(self, logits: Float64) -> Scores:
        """Return the score of each row of (n, c) logits, (n,)."""
        return -self.temperature * log_sum_exp(logits / self.temperature)
