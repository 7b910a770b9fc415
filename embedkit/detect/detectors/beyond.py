"""Neighbourhood of changed versions of the image itself (He, Xu, Chen and Yu, ICLR 2024)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.detect.covariance import class_means
from embedkit.detect.detector import Observation, State, detectors
from embedkit.detect.vectors import in_blocks, queries, vectors
from embedkit.errors import InvalidInput
from embedkit.measures.knn import unit
from embedkit.types import Embeddings, Scores

__all__ = ["Beyond", "FittedBeyond"]

Views = npt.NDArray[np.float32]


@detectors.register("beyond")
@dataclass(frozen=True)
class Beyond:
    """How little an image agrees with changed versions of itself, in likeness and in class.

    score(x) = mean_i (1 - z . z_i) / g + share of the v views whose class is not that of z,
    with g the mean of the first term over known images, and the class that of the nearest
    class mean by cosine. These are the paper's two counts (representation and label
    consistency), added up instead of compared with one threshold each. Without labels only the
    likeness counts.

    The views are made by whoever observes: a server does not make any, so that this detector is
    for evaluations.
    """

    @property
    def needs(self) -> frozenset[str]:
        """Embeddings of images and of their views; labels are used where given."""
        return frozenset({"embeddings", "views"})

    def fit(self, observation: Observation) -> "FittedBeyond":
        """Take the class means, and how much views of known images differ.

        Raises:
            InvalidInput: If there are no views.
        """
        found = unit(vectors(observation, "embeddings"))
        means, _ = class_means(found, observation.labels)
        gap = float(_gaps(found, _views(observation, found.shape[1])).mean())
        return FittedBeyond(unit(means), gap if gap > 0 else 1.0)

    def restore(self, state: Mapping[str, npt.NDArray[np.generic]]) -> "FittedBeyond":
        """Return the detector that gave ``state``."""
        means = np.asarray(state["means"], dtype=np.float32)
        gap = float(np.asarray(state["gap"]).item())
        if means.ndim != 2 or not gap > 0:
            raise ValueError(f"expected means (c, d) and a gap above 0, got {means.shape}")
        return FittedBeyond(means, gap)


@dataclass(frozen=True)
class FittedBeyond:
    """Class means, and the usual difference of a view.

    Attributes:
        means: (c, d) float32 unit vectors.
        gap: Mean of 1 - cosine over views of known images, above 0.
    """

    means: Embeddings
    gap: float

    @property
    def needs(self) -> frozenset[str]:
        """Embeddings of images and of their views."""
        return frozenset({"embeddings", "views"})

    def score(self, observation: Observation) -> Scores:
        """Return the disagreement of each image with its views, (n,), at least 0."""
        dim = self.means.shape[1]
        found = unit(queries(observation, "embeddings", dim))
        views = _views(observation, dim)
        return in_blocks(self._block, found, views, row_bytes=16 * views.shape[1] * dim)

    def state(self) -> State:
        """The means and the usual difference."""
        return {"means": self.means, "gap": np.asarray(self.gap, dtype=np.float64)}

    def _block(self, found: Embeddings, views: Views) -> Scores:
        own = (found @ self.means.T).argmax(axis=1)
        others = (views @ self.means.T).argmax(axis=2)
        strangers = (others != own[:, None]).mean(axis=1)
        return np.asarray(_gaps(found, views) / self.gap + strangers)


def _views(observation: Observation, dim: int) -> Views:
    """The (n, v, d) unit vectors of the views."""
    found = observation.views
    if found is None:
        raise InvalidInput("expected an observation with views, got none")
    if found.ndim != 3 or found.shape[1] < 1 or found.shape[2] != dim:
        raise InvalidInput(
            f"expected views (n, v, d) of {dim} dimensions, got shape {found.shape}"
        )
    return unit(found.reshape(-1, dim)).reshape(found.shape)


def _gaps(found: Embeddings, views: Views) -> Scores:
    """Mean of 1 - cosine of each image to its views."""
    cosines = np.einsum("nd,nvd->nv", found.astype(np.float64), views.astype(np.float64))
    return np.asarray(1 - cosines.mean(axis=1))
