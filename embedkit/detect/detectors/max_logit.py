"""Maximum logit (Hendrycks et al., ICML 2022)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.detect.detector import Observation, detectors
from embedkit.detect.logits import FittedRule, fit_rule, restore_rule
from embedkit.detect.vectors import Float64
from embedkit.types import Scores

__all__ = ["MaxLogit"]


@detectors.register("max_logit")
@dataclass(frozen=True)
class MaxLogit:
    """Minus the largest logit of the head: score(x) = -max_c l_c.

    Unlike a probability it keeps how strongly the head is convinced.
    """

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
        return restore_rule(MaxLogit, state)

    def novelty(self, logits: Float64) -> Scores:
        """Return the score of each row of (n, c) logits, (n,)."""
        return np.asarray(-logits.max(axis=1))
