"""SSD: Mahalanobis distance in a standardised space (Sehwag, Chiang and Mittal, ICLR 2021)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.detect.clusters import kmeans
from embedkit.detect.detector import Observation, State, detectors
from embedkit.detect.vectors import Float64, in_blocks, queries, vectors
from embedkit.errors import InvalidInput
from embedkit.measures.knn import unit
from embedkit.types import Embeddings, Scores

__all__ = ["SSD", "FittedSSD"]

_RCOND = 1e-10


@detectors.register("ssd")
@dataclass(frozen=True)
class SSD:
    """Squared Mahalanobis distance to the nearest cluster, each with a covariance of its own.

    Embeddings are scaled to length 1, then every dimension to mean 0 and deviation 1 over the
    known images. score(z) = min_m (z - mu_m)' pinv(S_m) (z - mu_m). Directions in which a
    cluster does not vary at all do not count.

    Attributes:
        clusters: By k-means; the paper's best for unlabelled images is 1.
        supervised: Take the labels as clusters (the paper's SSD+), where there are any.
        max_dim: Dimensions beyond which (d, d) covariances are refused.
    """

    clusters: int = 1
    supervised: bool = False
    max_dim: int = 4096

    @property
    def needs(self) -> frozenset[str]:
        """The embeddings alone."""
        return frozenset({"embeddings"})

    def fit(self, observation: Observation) -> "FittedSSD":
        """Estimate the scale of each dimension, and each cluster's mean and covariance.

        Raises:
            InvalidInput: If there are fewer than two images or too many dimensions.
        """
        found = unit(vectors(observation, "embeddings"))
        n, d = found.shape
        if n < 2 or d > self.max_dim or self.clusters < 1:
            raise InvalidInput(
                f"expected at least 2 images of at most {self.max_dim} dimensions and 1 "
                f"cluster, got {n} of {d} and {self.clusters}"
            )
        shift, scale = found.mean(axis=0, dtype=np.float64), found.std(axis=0, dtype=np.float64)
        # Float32 noise of a dimension that never varies must not become its unit.
        scale = np.where(scale > 1e-7 * max(float(scale.max()), 1e-30), scale, np.inf)
        standard = (found - shift) / scale
        groups = observation.labels if self.supervised else None
        if groups is None:
            groups = kmeans(standard.astype(np.float32), self.clusters)
        members = [standard[groups == g] for g in np.unique(groups)]
        means = np.stack([rows.mean(axis=0) for rows in members])
        factors = np.stack([_factor(rows) for rows in members])
        return FittedSSD(shift, scale, means, factors)

    def restore(self, state: Mapping[str, npt.NDArray[np.generic]]) -> "FittedSSD":
        """Return the detector that gave ``state``."""
        names = ("shift", "scale", "means", "factors")
        shift, scale, means, factors = (np.asarray(state[n], np.float64) for n in names)
        (d,), (m, _) = shift.shape, means.shape
        if (scale.shape, means.shape, factors.shape) != ((d,), (m, d), (m, d, d)):
            raise ValueError(f"expected (d,), (m, d), (m, d, d), got {factors.shape}")
        return FittedSSD(shift, scale, means, factors)


@dataclass(frozen=True)
class FittedSSD:
    """Scale of the dimensions, and the clusters.

    Attributes:
        shift: (d,) float64, mean of each dimension.
        scale: (d,) float64, its deviation; infinite where it never varies.
        means: (m, d) float64, of the clusters.
        factors: (m, d, d) float64, F with F F' the cluster's inverse covariance.
    """

    shift: Float64
    scale: Float64
    means: Float64
    factors: Float64

    @property
    def needs(self) -> frozenset[str]:
        """The embeddings alone."""
        return frozenset({"embeddings"})

    def score(self, observation: Observation) -> Scores:
        """Return the squared distance to the nearest cluster, (n,), at least 0."""
        dim = len(self.shift)
        found = unit(queries(observation, "embeddings", dim))
        return in_blocks(self._block, found, row_bytes=32 * dim)

    def state(self) -> State:
        """Scale and clusters."""
        return {
            "shift": self.shift,
            "scale": self.scale,
            "means": self.means,
            "factors": self.factors,
        }

    def _block(self, found: Embeddings) -> Scores:
        standard = (found - self.shift) / self.scale
        nearest = np.full(len(found), np.inf)
        for mean, factor in zip(self.means, self.factors, strict=True):
            away = (standard - mean) @ factor
            np.minimum(nearest, np.einsum("nd,nd->n", away, away), out=nearest)
        return nearest


def _factor(rows: Float64) -> Float64:
    """A (d, d) root of the pseudo-inverse of the covariance of (n, d) rows."""
    away = rows - rows.mean(axis=0)
    values, directions = np.linalg.eigh(away.T @ away / len(away))
    varies = values > _RCOND * max(float(values[-1]), 1e-300)
    inverse = np.where(varies, 1 / np.sqrt(np.where(varies, values, 1.0)), 0.0)
    return np.asarray(directions * inverse)
