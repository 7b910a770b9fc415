"""Entropy of the class probabilities (as in Macedo et al., 2021)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.detect.detector import Observation, detectors
from embedkit.detect.logits import FittedRule, fit_rule, restore_rule, softmax
from embedkit.detect.vectors import Float64
from embedkit.types import Scores

__all__ = ["Entropy"]


@detectors.register("entropy")
@dataclass(frozen=True)
class Entropy:
    """How undecided the head is: score(x) = -sum_c p_c log p_c with p = softmax(l).

    In nats, from 0 to log c.
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
        return restore_rule(Entropy, state)

    def novelty(self, logits: Float64) -> Scores:
        """Return the score of each row of (n, c) logits, (n,)."""
        p = softmax(logits)
        # p log p goes to 0 with p.
        logarithms = np.log(np.where(p > 0, p, 1.0))
        return np.asarray(-(p * logarithms).sum(axis=1))
