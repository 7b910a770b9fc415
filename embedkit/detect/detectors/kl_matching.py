"""Divergence from the nearest typical class posterior (Hendrycks et al., ICML 2022)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.detect.detector import Observation, State, detectors
from embedkit.detect.logits import logits_of, softmax
from embedkit.detect.vectors import Float64, in_blocks
from embedkit.types import Scores

__all__ = ["FittedKLMatching", "KLMatching"]

_SMALLEST = np.finfo(np.float64).tiny


@detectors.register("kl_matching")
@dataclass(frozen=True)
class KLMatching:
    """Divergence of the class posterior from the typical posterior of the nearest class.

    score(x) = min_k KL(p || d_k), with d_k the mean posterior of known images that are
    predicted as k. A class that is never predicted has none and is left out.
    """

    @property
    def needs(self) -> frozenset[str]:
        """The logits alone."""
        return frozenset({"logits"})

    def fit(self, observation: Observation) -> "FittedKLMatching":
        """Average the posteriors of each predicted class; the labels are not used.

        Raises:
            InvalidInput: If there are no logits.
        """
        posteriors = softmax(logits_of(observation))
        predicted = posteriors.argmax(axis=1)
        typical = [posteriors[predicted == k].mean(axis=0) for k in np.unique(predicted)]
        return FittedKLMatching(np.stack(typical))

    def restore(self, state: Mapping[str, npt.NDArray[np.generic]]) -> "FittedKLMatching":
        """Return the detector that gave ``state``."""
        typical = np.asarray(state["typical"], dtype=np.float64)
        if typical.ndim != 2 or not typical.size:
            raise ValueError(f"expected typical posteriors (k, c), got {typical.shape}")
        return FittedKLMatching(typical)


@dataclass(frozen=True)
class FittedKLMatching:
    """The typical posteriors.

    Attributes:
        typical: (k, c) float64; rows sum to 1.
    """

    typical: Float64

    @property
    def needs(self) -> frozenset[str]:
        """The logits alone."""
        return frozenset({"logits"})

    def score(self, observation: Observation) -> Scores:
        """Return the smallest divergence, (n,) in nats, at least 0 but for rounding."""
        groups, classes = self.typical.shape
        logits = logits_of(observation, classes)
        return in_blocks(self._block, logits, row_bytes=32 * classes + 8 * groups)

    def state(self) -> State:
        """The typical posteriors."""
        return {"typical": self.typical}

    def _block(self, logits: npt.NDArray[np.float32]) -> Scores:
        p = softmax(logits)
        # KL(p || d) = sum p log p - sum p log d; p log p goes to 0 with p.
        own = (p * np.log(np.where(p > 0, p, 1.0))).sum(axis=1)
        crossed = p @ np.log(np.maximum(self.typical, _SMALLEST)).T
        return np.asarray(own - crossed.max(axis=1))
