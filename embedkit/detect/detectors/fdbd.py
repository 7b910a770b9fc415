"""Distance to the decision boundaries (Liu and Qin, ICML 2024)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.detect.detector import Observation, State, detectors
from embedkit.detect.logits import head_of, logits_of
from embedkit.detect.vectors import Float64, in_blocks, queries, vectors
from embedkit.types import Embeddings, Scores

__all__ = ["FDBD", "FittedFDBD"]


@detectors.register("fdbd")
@dataclass(frozen=True)
class FDBD:
    """Mean distance to the head's decision boundaries, relative to the distance to the mean.

    score(z) = -mean over c != m of |l_m - l_c| / ||w_m - w_c|| / ||z - mu||, with m the
    predicted class of z and mu the mean feature of known images.
    """

    @property
    def needs(self) -> frozenset[str]:
        """Features, logits and the head between them."""
        return frozenset({"features", "logits", "head"})

    def fit(self, observation: Observation) -> "FittedFDBD":
        """Take the mean of known images and the distances between the head's weights.

        Raises:
            InvalidInput: If there are no features, logits or head.
        """
        found, logits = vectors(observation, "features"), logits_of(observation)
        weight = np.asarray(head_of(observation).weight, dtype=np.float64)
        gaps = np.stack([np.linalg.norm(weight - row, axis=1) for row in weight])
        return FittedFDBD(found.mean(axis=0, dtype=np.float64), gaps[: logits.shape[1]])

    def restore(self, state: Mapping[str, npt.NDArray[np.generic]]) -> "FittedFDBD":
        """Return the detector that gave ``state``."""
        mean, gaps = (np.asarray(state[name], np.float64) for name in ("mean", "gaps"))
        if mean.ndim != 1 or gaps.ndim != 2 or gaps.shape[0] != gaps.shape[1]:
            raise ValueError(f"expected (d,) and (c, c), got {mean.shape}, {gaps.shape}")
        return FittedFDBD(mean, gaps)


@dataclass(frozen=True)
class FittedFDBD:
    """The mean of known images and the head's geometry.

    Attributes:
        mean: (d,) float64.
        gaps: (c, c) float64, ||w_i - w_j||.
    """

    mean: Float64
    gaps: Float64

    @property
    def needs(self) -> frozenset[str]:
        """Features and logits."""
        return frozenset({"features", "logits"})

    def score(self, observation: Observation) -> Scores:
        """Return minus the relative distance, (n,), at most 0."""
        found = queries(observation, "features", len(self.mean))
        logits = logits_of(observation, len(self.gaps))
        return in_blocks(
            self._block, found, logits, row_bytes=32 * (len(self.mean) + len(self.gaps))
        )

    def state(self) -> State:
        """The mean and the distances."""
        return {"mean": self.mean, "gaps": self.gaps}

    def _block(self, found: Embeddings, logits: npt.NDArray[np.float32]) -> Scores:
        predicted = logits.argmax(axis=1)
        values = logits.astype(np.float64)
        margins = values.max(axis=1, keepdims=True) - values
        gaps = self.gaps[predicted]
        # Two classes of the same weights have no boundary; the class itself has none either.
        distances = np.divide(margins, gaps, out=np.zeros_like(margins), where=gaps > 0)
        mean = distances.sum(axis=1) / np.maximum((gaps > 0).sum(axis=1), 1)
        away = np.linalg.norm(found - self.mean, axis=1)
        return np.asarray(-mean / np.maximum(away, np.finfo(np.float64).tiny))
