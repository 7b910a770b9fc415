"""Stored patterns of each class (Zhang et al., ICLR 2023)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.detect.detector import Observation, State, detectors
from embedkit.detect.logits import logits_of
from embedkit.detect.vectors import Float64, in_blocks, queries, vectors
from embedkit.types import Embeddings, Scores

__all__ = ["SHE", "FittedSHE"]


@detectors.register("she")
@dataclass(frozen=True)
class SHE:
    """Simplified Hopfield energy: minus the inner product with the predicted class's pattern.

    score(z) = -z . s_c with c the predicted class of z and s_c the mean feature of the known
    images of class c that are classified correctly; without labels, of those predicted as c.
    A class without such images has the pattern 0.
    """

    @property
    def needs(self) -> frozenset[str]:
        """Features and logits; labels are used where given."""
        return frozenset({"features", "logits"})

    def fit(self, observation: Observation) -> "FittedSHE":
        """Average the features of each class's correctly classified images.

        Raises:
            InvalidInput: If there are no features or logits.
        """
        found, logits = vectors(observation, "features"), logits_of(observation)
        predicted = logits.argmax(axis=1)
        labels = observation.labels
        correct = np.ones(len(found), bool) if labels is None else predicted == labels
        patterns = np.zeros((logits.shape[1], found.shape[1]))
        for c in np.unique(predicted[correct]):
            patterns[c] = found[correct & (predicted == c)].mean(axis=0, dtype=np.float64)
        return FittedSHE(patterns)

    def restore(self, state: Mapping[str, npt.NDArray[np.generic]]) -> "FittedSHE":
        """Return the detector that gave ``state``."""
        patterns = np.asarray(state["patterns"], dtype=np.float64)
        if patterns.ndim != 2:
            raise ValueError(f"expected patterns (c, d), got {patterns.shape}")
        return FittedSHE(patterns)


@dataclass(frozen=True)
class FittedSHE:
    """One pattern per class.

    Attributes:
        patterns: (c, d) float64.
    """

    patterns: Float64

    @property
    def needs(self) -> frozenset[str]:
        """Features and logits."""
        return frozenset({"features", "logits"})

    def score(self, observation: Observation) -> Scores:
        """Return minus the inner product, (n,)."""
        classes, dim = self.patterns.shape
        found = queries(observation, "features", dim)
        logits = logits_of(observation, classes)
        return in_blocks(self._block, found, logits, row_bytes=32 * dim)

    def state(self) -> State:
        """The patterns."""
        return {"patterns": self.patterns}

    def _block(self, found: Embeddings, logits: npt.NDArray[np.float32]) -> Scores:
        stored = self.patterns[logits.argmax(axis=1)]
        return np.asarray(-np.einsum("nd,nd->n", found.astype(np.float64), stored))
