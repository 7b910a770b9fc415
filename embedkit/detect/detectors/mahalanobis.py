"""Mahalanobis distance to the nearest class mean (Lee, Lee, Lee and Shin, NeurIPS 2018)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from embedkit.detect.detector import Observation, State, detectors
from embedkit.errors import InvalidInput
from embedkit.types import Labels, Scores

__all__ = ["FittedMahalanobis", "Mahalanobis", "ledoit_wolf"]

Source = Literal["embeddings", "features"]
Float64 = npt.NDArray[np.float64]

_SMALLEST_RCOND = 1e-10


@detectors.register("mahalanobis")
@dataclass(frozen=True)
class Mahalanobis:
    """Squared Mahalanobis distance to the nearest class mean, one covariance for all classes.

    With labels: score(z) = min_c (z - mu_c)' S^-1 (z - mu_c), where S is the mean over all
    images of the outer product of their deviation from their own class mean. Without labels
    there is one mean.

    Attributes:
        source: Unit ``embeddings`` (as in Mahalanobis++, 2025), or ``features`` before
            normalisation (as in the paper).
        shrinkage: ``ledoit_wolf`` always shrinks S towards a multiple of the identity, ``none``
            never does, ``auto`` does if there are no more images than dimensions or S is
            numerically singular.
        max_dim: Dimensions beyond which a (d, d) covariance is refused.
    """

    source: Source = "embeddings"
    shrinkage: Literal["auto", "ledoit_wolf", "none"] = "auto"
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
        vectors = _vectors(observation, self.source)
        n, d = vectors.shape
        if n < 2 or d > self.max_dim:
            raise InvalidInput(
                f"expected at least 2 images of at most {self.max_dim} dimensions, "
                f"got {n} of {d}"
            )
        means, deviations = _class_means(vectors, observation.labels)
        return FittedMahalanobis(means, self._whitening(deviations), self.source)

    def restore(self, state: Mapping[str, npt.NDArray[np.generic]]) -> "FittedMahalanobis":
        """Return the detector that gave ``state``."""
        means = np.asarray(state["means"], dtype=np.float64)
        whitening = np.asarray(state["whitening"], dtype=np.float64)
        source: Source = "features" if bool(state["on_features"]) else "embeddings"
        if means.ndim != 2 or whitening.shape != (means.shape[1], means.shape[1]):
            raise ValueError(f"expected (c, d), (d, d), got {means.shape}, {whitening.shape}")
        return FittedMahalanobis(means, whitening, source)

    def _whitening(self, deviations: Float64) -> Float64:
        """The inverse of the covariance's Cholesky factor."""
        n, d = deviations.shape
        covariance = deviations.T @ deviations / n
        shrunk = self.shrinkage == "ledoit_wolf" or (self.shrinkage == "auto" and n <= d)
        inverse = None if shrunk else _inverse_factor(covariance)
        if inverse is None and self.shrinkage == "none":
            raise InvalidInput(
                f"expected a covariance of full rank, got one of {n} images in {d} dimensions "
                "that is numerically singular; use shrinkage='auto'"
            )
        if inverse is None:
            inverse = _inverse_factor(ledoit_wolf(deviations))
        # Without any spread (a collapsed encoder) every direction counts the same.
        return np.eye(d) if inverse is None else inverse


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
        vectors = _vectors(observation, self.source)
        if vectors.shape[1] != self.means.shape[1]:
            raise InvalidInput(
                f"expected {self.source} of {self.means.shape[1]} dimensions, "
                f"got {vectors.shape[1]}"
            )
        # Whitened once, around the centre of the means so that no digits are lost.
        centre = self.means.mean(axis=0)
        white = (vectors - centre) @ self.whitening.T
        nearest = np.full(len(vectors), np.inf)
        for mean in (self.means - centre) @ self.whitening.T:
            away = white - mean
            np.minimum(nearest, np.einsum("nd,nd->n", away, away), out=nearest)
        return nearest

    def state(self) -> State:
        """The means, the whitening matrix and the source."""
        return {
            "means": self.means,
            "whitening": self.whitening,
            "on_features": np.asarray(self.source == "features"),
        }


def ledoit_wolf(deviations: Float64) -> Float64:
    """Return the covariance shrunk towards a multiple of the identity (Ledoit and Wolf, 2004).

    Args:
        deviations: (n, d) vectors with their mean taken off.

    Returns:
        (1 - s) S + s m I with m the mean variance of S; s, in [0, 1], minimises the expected
        squared error.
    """
    n, d = deviations.shape
    covariance = deviations.T @ deviations / n
    scale = np.trace(covariance) / d
    target = scale * np.eye(d)
    distance = np.sum((covariance - target) ** 2) / d
    lengths = np.einsum("nd,nd->n", deviations, deviations)
    # (1 / n^2) sum_i ||x_i x_i' - S||^2 / d, written out so that no (n, d, d) array is needed.
    error = (np.mean(lengths**2) - np.sum(covariance**2)) / n / d
    share = 0.0 if distance == 0 else min(float(error), float(distance)) / float(distance)
    return np.asarray((1 - share) * covariance + share * target)


def _vectors(observation: Observation, source: Source) -> Float64:
    found = observation.embeddings if source == "embeddings" else observation.features
    if found is None:
        raise InvalidInput(f"expected an observation with {source}, got none")
    return np.asarray(found, dtype=np.float64)


def _class_means(vectors: Float64, labels: Labels | None) -> tuple[Float64, Float64]:
    """Means (c, d), and each vector less its own class's mean."""
    classes = np.zeros(len(vectors), np.int64) if labels is None else labels
    _, index = np.unique(classes, return_inverse=True)
    count = int(index.max()) + 1
    means = np.stack([vectors[index == c].mean(axis=0) for c in range(count)])
    return means, vectors - means[index]


def _inverse_factor(covariance: Float64) -> Float64 | None:
    """L^-1 with L L' the covariance, or None if that is numerically singular."""
    try:
        factor = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        return None
    pivots = np.diagonal(factor) ** 2
    if pivots.min() < _SMALLEST_RCOND * pivots.max():
        return None
    return np.linalg.solve(factor, np.eye(len(factor)))
