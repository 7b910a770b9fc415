"""Hubs: images that are among the nearest neighbours of far too many others."""

import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput
from embedkit.measures.knn import Neighbours, nearest
from embedkit.types import Embeddings, Labels

__all__ = ["neighbour_purity", "neighbours_of_each", "occurrences", "skewness"]


def neighbours_of_each(z: Embeddings, k: int) -> Neighbours:
    """The k nearest other images of each image by cosine, (n, k), best first.

    Args:
        z: (n, d) embeddings; normalised here.
        k: Neighbours, 1 to n - 1.

    Raises:
        InvalidInput: If k is out of range or a value is not finite.
    """
    if not 1 <= k < len(z):
        raise InvalidInput(f"expected 1 to {len(z) - 1} neighbours, got {k}")
    found, _ = nearest(z, z, k + 1)
    own = found == np.arange(len(z))[:, np.newaxis]
    # Among equals the image itself may come later than k: then the last one goes instead.
    own[~own.any(axis=1), -1] = True
    return np.asarray(found[~own].reshape(len(z), k))


def occurrences(neighbours: Neighbours) -> npt.NDArray[np.int64]:
    """How often each image is among the neighbours of another, (n,); k on average."""
    return np.bincount(neighbours.ravel(), minlength=len(neighbours))


def skewness(counts: npt.NDArray[np.integer]) -> float:
    """Skewness of the occurrences: the usual measure of hubness (Radovanovic et al. 2010).

    Returns:
        About 0 without hubs, above 1 with pronounced ones; 0 where all counts are equal.
    """
    centred = counts - counts.mean()
    spread = float(np.mean(centred**2))
    return float(np.mean(centred**3)) / spread**1.5 if spread > 0 else 0.0


def neighbour_purity(neighbours: Neighbours, labels: Labels) -> npt.NDArray[np.float64]:
    """Share of each image's neighbours that have its class, (n,)."""
    same: npt.NDArray[np.float64] = (labels[neighbours] == labels[:, np.newaxis]).mean(axis=1)
    return same
