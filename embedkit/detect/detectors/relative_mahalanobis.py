"""Mahalanobis distance to a class, less that to all known images (Ren et al., 2021)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.detect.clusters import kmeans
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

__all__ = ["FittedRelativeMahalanobis", "RelativeMahalanobis"]


@detectors.register("relative_mahalanobis")
@dataclass(frozen=True)
class RelativeMahalanobis:
    """How much farther an image lies from its nearest class than from the whole.

    score(z) = min_c MD_c(z) - MD_0(z), with MD_c the squared distance to class c under the
    covariance within classes, and MD_0 that to the mean of all images under the covariance of
    all images. What all images share counts on both sides and drops out. May be negative.

    Attributes:
        source: Unit ``embeddings``, or ``features`` before normalisation (as in the paper).
        shrinkage: Of both covariances, as for ``mahalanobis``.
        clusters: Groups by k-means that stand for the classes where there are no labels.
        max_dim: Dimensions beyond which a (d, d) covariance is refused.
    """

    source: Source = "embeddings"
    shrinkage: Shrinkage = "auto"
    clusters: int = 10
    max_dim: int = 4096

    @property
    def needs(self) -> frozenset[str]:
        """The source; labels are used where given."""
        return frozenset({self.source})

    def fit(self, observation: Observation) -> "FittedRelativeMahalanobis":
        """Estimate both covariances and all means.

        Raises:
            InvalidInput: If there are fewer than two images, too many dimensions, or a singular
                covariance with ``shrinkage="none"``.
        """
        found = vectors(observation, self.source)
        labels = observation.labels
        if labels is None:
            labels = kmeans(found, self.clusters)
        means, within = class_means(found, labels)
        whiten = whitening(within, self.shrinkage, self.max_dim)
        mean, away = class_means(found, None)
        whiten_all = whitening(away, self.shrinkage, self.max_dim)
        return FittedRelativeMahalanobis(means, whiten, mean, whiten_all, self.source)

    def restore(
        self, state: Mapping[str, npt.NDArray[np.generic]]
    ) -> "FittedRelativeMahalanobis":
        """Return the detector that gave ``state``."""
        names = ("means", "whitening", "mean", "whitening_all")
        means, whiten, mean, whiten_all = (np.asarray(state[n], np.float64) for n in names)
        dim = means.shape[-1]
        shapes = (means.ndim, mean.shape, whiten.shape, whiten_all.shape)
        if shapes != (2, (1, dim), (dim, dim), (dim, dim)):
            raise ValueError(f"expected means (c, d) and matrices (d, d), got {shapes}")
        source: Source = "features" if bool(state["on_features"]) else "embeddings"
        return FittedRelativeMahalanobis(means, whiten, mean, whiten_all, source)


@dataclass(frozen=True)
class FittedRelativeMahalanobis:
    """Means and whitening matrices of the classes and of all images.

    Attributes:
        means: (c, d) float64, of the classes.
        whitening: (d, d) float64, of the deviations within classes.
        mean: (1, d) float64, of all images.
        whitening_all: (d, d) float64, of the deviations from it.
        source: Which field of an observation is scored.
    """

    means: Float64
    whitening: Float64
    mean: Float64
    whitening_all: Float64
    source: Source = "embeddings"

    @property
    def needs(self) -> frozenset[str]:
        """The source."""
        return frozenset({self.source})

    def score(self, observation: Observation) -> Scores:
        """Return the difference of the two squared distances, (n,)."""
        dim = self.means.shape[1]
        found = queries(observation, self.source, dim)
        return in_blocks(self._block, found, row_bytes=32 * dim)

    def state(self) -> State:
        """Means, whitening matrices and the source."""
        return {
            "means": self.means,
            "whitening": self.whitening,
            "mean": self.mean,
            "whitening_all": self.whitening_all,
            "on_features": np.asarray(self.source == "features"),
        }

    def _block(self, found: Embeddings) -> Scores:
        nearest = nearest_squared(found, self.means, self.whitening)
        return np.asarray(nearest - nearest_squared(found, self.mean, self.whitening_all))
