"""Gaussian mixture with one covariance (McLachlan and Peel, 2000, chapter 3)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.detect.clusters import kmeans
from embedkit.detect.detector import Observation, State, detectors
from embedkit.detect.logits import log_sum_exp
from embedkit.detect.vectors import Float64, Source, in_blocks, queries, vectors
from embedkit.errors import InvalidInput
from embedkit.types import Embeddings, Labels, Scores

__all__ = ["GMM", "FittedGMM"]

_STEPS = 200
_TOLERANCE = 1e-6


@detectors.register("gmm")
@dataclass(frozen=True)
class GMM:
    """Minus the log density under a mixture of normal distributions of one covariance.

    score(z) = -log sum_k w_k N(z; mu_k, S), fitted by expectation maximisation that starts
    from the labels, or from k-means where there are none.

    Attributes:
        components: Of the mixture where there are no labels; else one per class.
        source: Unit ``embeddings``, or ``features`` before normalisation.
        ridge: Added to the diagonal of S, in squared units of the source, above 0.
        max_dim: Dimensions beyond which a (d, d) covariance is refused.
    """

    components: int = 10
    source: Source = "embeddings"
    ridge: float = 1e-6
    max_dim: int = 4096

    def __post_init__(self) -> None:
        if self.components < 1 or not self.ridge > 0:
            raise InvalidInput(
                "expected components >= 1 and a ridge above 0, "
                f"got {self.components} and {self.ridge}"
            )

    @property
    def needs(self) -> frozenset[str]:
        """The source; labels are used where given."""
        return frozenset({self.source})

    def fit(self, observation: Observation) -> "FittedGMM":
        """Run expectation maximisation.

        Raises:
            InvalidInput: If there are fewer than two images or too many dimensions.
        """
        found = vectors(observation, self.source)
        n, d = found.shape
        if n < 2 or d > self.max_dim:
            raise InvalidInput(
                f"expected at least 2 images of at most {self.max_dim} dimensions, "
                f"got {n} of {d}"
            )
        labels = observation.labels
        groups: Labels = kmeans(found, self.components) if labels is None else labels
        centre = found.mean(axis=0, dtype=np.float64)
        weights, means, covariance = self._maximise(found - centre, groups)
        # S = L L', so that ||L^-1 (z - mu)|| is the distance.
        whiten = np.linalg.solve(np.linalg.cholesky(covariance), np.eye(d))
        return FittedGMM(weights, means + centre, whiten, self.source)

    def restore(self, state: Mapping[str, npt.NDArray[np.generic]]) -> "FittedGMM":
        """Return the detector that gave ``state``."""
        names = ("weights", "means", "whitening")
        weights, means, whiten = (np.asarray(state[name], np.float64) for name in names)
        if means.ndim != 2 or (weights.shape, whiten.shape) != (
            means.shape[:1],
            (means.shape[1], means.shape[1]),
        ):
            raise ValueError(f"expected (k,), (k, d), (d, d), got {means.shape} means")
        source: Source = "features" if bool(state["on_features"]) else "embeddings"
        return FittedGMM(weights, means, whiten, source)

    def _maximise(self, centred: Float64, groups: Labels) -> tuple[Float64, Float64, Float64]:
        """Weights (k,), means (k, d) and covariance (d, d) at the end of the iterations.

        With one covariance the scatter of all images is fixed, so that a step costs products
        of (n, d) and (d, k) alone: z' S^-1 z is the same for every component.
        """
        n, d = centred.shape
        scatter = centred.T @ centred / n
        members = (groups == np.unique(groups)[:, None]).T.astype(np.float64)
        before = -np.inf
        for _ in range(_STEPS):
            counts = members.sum(axis=0)
            # A component that lost all of its images keeps no weight.
            means = members.T @ centred / np.maximum(counts, 1e-12)[:, None]
            weights = counts / n
            covariance = scatter - (means.T * weights) @ means + self.ridge * np.eye(d)
            pull = np.linalg.solve(covariance, means.T)
            with np.errstate(divide="ignore"):
                offsets = np.log(weights) - 0.5 * np.einsum("kd,dk->k", means, pull)
            relative = centred @ pull + offsets
            total = log_sum_exp(relative)
            members = np.exp(relative - total[:, None])
            # The mean log likelihood, but for the constant of the dimension.
            _, log_determinant = np.linalg.slogdet(covariance)
            constant = np.trace(np.linalg.solve(covariance, scatter)) + log_determinant
            likelihood = float(total.mean()) - 0.5 * float(constant)
            if likelihood - before < _TOLERANCE:
                break
            before = likelihood
        return weights, means, covariance


@dataclass(frozen=True)
class FittedGMM:
    """The mixture.

    Attributes:
        weights: (k,) float64, summing to 1.
        means: (k, d) float64.
        whitening: (d, d) float64, lower triangular, W with W'W the inverse covariance.
        source: Which field of an observation is scored.
    """

    weights: Float64
    means: Float64
    whitening: Float64
    source: Source = "embeddings"

    @property
    def needs(self) -> frozenset[str]:
        """The source."""
        return frozenset({self.source})

    def score(self, observation: Observation) -> Scores:
        """Return minus the log density, (n,), of any sign."""
        dim = self.means.shape[1]
        found = queries(observation, self.source, dim)
        return in_blocks(self._block, found, row_bytes=32 * dim)

    def state(self) -> State:
        """The mixture and the source."""
        return {
            "weights": self.weights,
            "means": self.means,
            "whitening": self.whitening,
            "on_features": np.asarray(self.source == "features"),
        }

    def _block(self, found: Embeddings) -> Scores:
        centre = self.means.mean(axis=0)
        white = (np.asarray(found, dtype=np.float64) - centre) @ self.whitening.T
        densities = np.empty((len(found), len(self.means)))
        for k, mean in enumerate((self.means - centre) @ self.whitening.T):
            away = white - mean
            densities[:, k] = -0.5 * np.einsum("nd,nd->n", away, away)
        with np.errstate(divide="ignore"):
            densities += np.log(self.weights)
        constant = 0.5 * len(centre) * math.log(2 * math.pi)
        constant -= float(np.log(np.diagonal(self.whitening)).sum())
        return constant - log_sum_exp(densities)
