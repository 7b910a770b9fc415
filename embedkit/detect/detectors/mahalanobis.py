"""Mahalanobis distance to the nearest class mean (Lee, Lee, Lee and Shin, NeurIPS 2018)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.detect.covariance import (
    Float64,
    Shrinkage,
    class_means,
    nearest_squared,
    whitening,
)
from embedkit.detect.detector import Observation, State, detectors
from embedkit.detect.vectors import Source, in_blocks, queries, vectors
from embedkit.types import Embeddings, Scores

__all__ = ["FittedMahalanobis", "Mahalanobis"]


@detectors.register("mahalanobis")
@dataclass(frozen=True)
class Mahalanobis:
    """Squared Mahalanobis distance to the nearest class mean, one covariance for all classes.

    With labels: score(z) = min_c (z - mu_c)' S^-1 (z - mu_c), where S is the mean over all
    images of the outer product of their deviation from their own class mean. Without labels
    there is one mean.

    Attributes:
        source: Unit ``embeddings`` (Mahalanobis++: Mueller and Hein, ICML 2025), or
            ``features`` before normalisation (as in the paper).
        shrinkage: ``ledoit_wolf`` and ``oas`` always shrink S towards a multiple of the
            identity, ``none`` never does, ``auto`` does as Ledoit and Wolf if there are no more
            images than dimensions or S is numerically singular.
        max_dim: Dimensions beyond which a (d, d) covariance is refused.
    """

    source: Source = "embeddings"
    shrinkage: Shrinkage = "auto"
    max_dim: int = 4096

    @property
    def needs(self) -> frozenset[str]:
        """The source; labels are used where given."""
        return frozenset({self.source})

    def fit(self, observation: Observation) -> "FittedMahalanobis":
        """Estimate the means and the covariance.

        Raises:
            InvalidInput: If there are fewer than two images, too many dimensions, or a singular
                covariance with ``shrinkage="none"``.
        """
        means, deviations = class_means(vectors(observation, self.source), observation.labels)
        whiten = whitening(deviations, self.shrinkage, self.max_dim)
        return FittedMahalanobis(means, whiten, self.source)

    def restore(self, state: Mapping[str, npt.NDArray[np.generic]]) -> "FittedMahalanobis":
        """Return the detector that gave ``state``."""
        means = np.asarray(state["means"], dtype=np.float64)
        whiten = np.asarray(state["whitening"], dtype=np.float64)
        source: Source = "features" if bool(state["on_features"]) else "embeddings"
        if means.ndim != 2 or whiten.shape != (means.shape[1], means.shape[1]):
            raise ValueError(f"expected (c, d), (d, d), got {means.shape}, {whiten.shape}")
        return FittedMahalanobis(means, whiten, source)


@dataclass(frozen=True)
class FittedMahalanobis:
    """The class means and the whitening matrix.

    Attributes:
        means: (c, d) float64.
        whitening: (d, d) float64, W with W'W the inverse covariance.
        source: Which field of an observation is scored.
    """

    means: Float64
    whitening: Float64
    source: Source = "embeddings"

    @property
    def needs(self) -> frozenset[str]:
        """The source."""
        return frozenset({self.source})

    def score(self, observation: Observation) -> Scores:
        """Return the squared distance to the nearest mean, (n,), at least 0."""
        dim = self.means.shape[1]
        found = queries(observation, self.source, dim)
        return in_blocks(self._block, found, row_bytes=32 * dim)

    def state(self) -> State:
        """The means, the whitening matrix and the source."""
        return {
            "means": self.means,
            "whitening": self.whitening,
            "on_features": np.asarray(self.source == "features"),
        }

    def _block(self, found: Embeddings) -> Scores:
        return nearest_squared(found, self.means, self.whitening)
