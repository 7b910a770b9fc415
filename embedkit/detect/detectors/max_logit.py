"""Maximum logit (Hendrycks et al., ICML 2022)."""

from dataclasses import dataclass

import numpy as np

from embedkit.detect.detector import detectors
from embedkit.detect.logits import Rule
from embedkit.detect.vectors import Float64
from embedkit.types import Scores

__all__ = ["MaxLogit"]


@detectors.register("max_logit")
@dataclass(frozen=True)
class MaxLogit(Rule):
    """Minus the largest logit of the head: score(x) = -max_c l_c.

    Unlike a probability it keeps how strongly the head is convinced.
    """

    def novelty(self, logits: Float64) -> Scores:
        """Return the score of each row of (n, c) logits, (n,)."""
        return np.asarray(-logits.max(axis=1))
