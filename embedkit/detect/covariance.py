"""Means and covariances of known images, and the matrices that whiten with them."""

from typing import Literal

import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput
from embedkit.types import Embeddings, Labels

__all__ = [
    "Float64",
    "Shrinkage",
    "class_means",
    "inverse_factor",
    "ledoit_wolf",
    "nearest_squared",
    "oas",
    "whitening",
]

Float64 = npt.NDArray[np.float64]
Shrinkage = Literal["auto", "ledoit_wolf", "oas", "none"]

_SMALLEST_RCOND = 1e-10


def class_means(vectors: Embeddings, labels: Labels | None) -> tuple[Float64, Float64]:
    """Return the means (c, d), and each vector less its own class's mean, (n, d).

    Without labels all images are one class.
    """
    values = np.asarray(vectors, dtype=np.float64)
    classes = np.zeros(len(values), np.int64) if labels is None else labels
    _, index = np.unique(classes, return_inverse=True)
    count = int(index.max()) + 1
    means = np.stack([values[index == c].mean(axis=0) for c in range(count)])
    return means, values - means[index]


def whitening(deviations: Float64, shrinkage: Shrinkage, max_dim: int) -> Float64:
    """Return (d, d) W with W'W the inverse covariance of (n, d) deviations from their mean.

    Args:
        deviations: (n, d) vectors with their mean taken off.
        shrinkage: ``ledoit_wolf`` and ``oas`` always shrink towards a multiple of the
            identity, ``none`` never does, ``auto`` does as Ledoit and Wolf if there are no more
            images than dimensions or the covariance is numerically singular.
        max_dim: Dimensions beyond which a (d, d) covariance is refused.

    Raises:
        InvalidInput: If there are fewer than two images, too many dimensions, or a singular
            covariance that may not be shrunk.
    """
    n, d = deviations.shape
    if n < 2 or d > max_dim:
        raise InvalidInput(
            f"expected at least 2 images of at most {max_dim} dimensions, got {n} of {d}"
        )
    inverse = None
    if shrinkage == "none" or (shrinkage == "auto" and n > d):
        inverse = inverse_factor(deviations.T @ deviations / n)
    if inverse is None and shrinkage == "none":
        raise InvalidInput(
            f"expected a covariance of full rank, got one of {n} images in {d} dimensions "
            "that is numerically singular; use shrinkage='auto'"
        )
    if inverse is None:
        inverse = inverse_factor((oas if shrinkage == "oas" else ledoit_wolf)(deviations))
    # Without any spread (a collapsed encoder) every direction counts the same.
    return np.eye(d) if inverse is None else inverse


def inverse_factor(covariance: Float64) -> Float64 | None:
    """Return L^-1 with L L' the covariance, or None if that is numerically singular."""
    try:
        factor = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        return None
    pivots = np.diagonal(factor) ** 2
    if pivots.min() < _SMALLEST_RCOND * pivots.max():
        return None
    return np.linalg.solve(factor, np.eye(len(factor)))


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


def oas(deviations: Float64) -> Float64:
    """Return the covariance shrunk as is best for normal data (Chen et al., 2010).

    The oracle approximating shrinkage of equation 23, in the form scikit-learn uses: with
    a = mean of S's squared entries and m the mean variance, s = (a + m^2) / ((n + 1)
    (a - m^2 / d)), at most 1.

    Args:
        deviations: (n, d) vectors with their mean taken off.
    """
    n, d = deviations.shape
    covariance = deviations.T @ deviations / n
    scale = np.trace(covariance) / d
    size = float(np.mean(covariance**2))
    denominator = (n + 1) * (size - scale**2 / d)
    share = 1.0 if denominator <= 0 else min(float((size + scale**2) / denominator), 1.0)
    return np.asarray((1 - share) * covariance + share * scale * np.eye(d))


def nearest_squared(vectors: Embeddings, means: Float64, whiten: Float64) -> Float64:
    """Return the squared Mahalanobis distance of (n, d) vectors to the nearest mean, (n,)."""
    # Whitened once, around the centre of the means so that no digits are lost.
    centre = means.mean(axis=0)
    white = (np.asarray(vectors, dtype=np.float64) - centre) @ whiten.T
    nearest = np.full(len(white), np.inf)
    for mean in (means - centre) @ whiten.T:
        away = white - mean
        np.minimum(nearest, np.einsum("nd,nd->n", away, away), out=nearest)
    return nearest
