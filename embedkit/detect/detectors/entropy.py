"""Entropy of the class probabilities (as in Macedo et al., 2021)."""

from dataclasses import dataclass

import numpy as np

from embedkit.detect.detector import detectors
from embedkit.detect.logits import Rule, softmax
from embedkit.detect.vectors import Float64
from embedkit.types import Scores

__all__ = ["Entropy"]


@detectors.register("entropy")
@dataclass(frozen=True)
class Entropy(Rule):
    """How undecided the head is: score(x) = -sum_c p_c log p_c with p = softmax(l).

    In nats, from 0 to log c.
    """

    def novelty(self, logits: Float64) -> Scores:
        """Return the score of each row of (n, c) logits, (n,)."""
        p = softmax(logits)
        # p log p goes to 0 with p.
        logarithms = np.log(np.where(p > 0, p, 1.0))
        return np.asarray(-(p * logarithms).sum(axis=1))
