"""Eigenvalues of embeddings: in how many directions do the images differ?"""

import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput
from embedkit.types import Embeddings

__all__ = ["decay", "eigenvalues", "lidar", "participation_ratio", "spectral_rank"]

Eigenvalues = npt.NDArray[np.float64]

# Variance below this share of the mean square is what rounding leaves of equal embeddings.
_NOISE = 1e-12
_RANKME_EPSILON = 1e-7
_DECAY_FIT = (10, 0.5)


def eigenvalues(z: Embeddings) -> Eigenvalues:
    """Eigenvalues of the covariance, (d,), the largest first; all 0 where nothing differs.

    Args:
        z: (n, d) embeddings, n at least 2.

    Raises:
        InvalidInput: If there are fewer than two images or a value is not finite.
    """
    values = _finite(z, 2)
    centred = values - values.mean(axis=0)
    found = np.linalg.eigvalsh(centred.T @ centred / (len(values) - 1))[::-1].clip(min=0.0)
    if found.sum() <= _NOISE * np.mean(np.sum(values * values, axis=1)):
        return np.zeros_like(found)
    return found


def participation_ratio(spectrum: Eigenvalues) -> float:
    """``(sum of eigenvalues)^2 / sum of squares``: directions that carry the variance.

    Returns:
        From 1 (one direction) to d (all equally); 0 where nothing differs.
    """
    squares = float(np.sum(spectrum * spectrum))
    return float(spectrum.sum()) ** 2 / squares if squares > 0 else 0.0


def decay(spectrum: Eigenvalues) -> float:
    """Exponent of the power law that the eigenvalues follow: ``lambda_i ~ i^-alpha``.

    Agrawal et al. (2022) find embeddings near alpha = 1 the most useful. Fitted by least
    squares in the logarithms, from the tenth eigenvalue (the first where there are fewer than
    40) to the half of them, and over those above 0 alone.

    Returns:
        At least about 0 (all equal); 0 where fewer than two eigenvalues are above 0.
    """
    start, share = _DECAY_FIT
    last = max(2, int(len(spectrum) * share)) if len(spectrum) >= 4 * start else len(spectrum)
    first = start if len(spectrum) >= 4 * start else 0
    rank = np.arange(1, len(spectrum) + 1)[first:last]
    chosen = spectrum[first:last]
    positive = chosen > max(1e-12 * float(spectrum.max(initial=0.0)), 0.0)
    if positive.sum() < 2:
        return 0.0
    slope = np.polyfit(np.log(rank[positive]), np.log(chosen[positive]), 1)[0]
    return float(-slope) + 0.0


def lidar(views: npt.NDArray[np.floating], *, ridge: float = 1e-4) -> float:
    """Directions that tell images apart despite augmentation: LiDAR (Thilak et al. 2024).

    The rank (as RankMe's, of eigenvalues) of ``S_w^-1/2 S_b S_w^-1/2``, where S_b is the
    covariance of the images' means and S_w the mean covariance of an image's views.

    Args:
        views: (n, q, d): q augmented views of each of n images, n and q at least 2.
        ridge: Added to the diagonal of S_w, the paper's delta.

    Returns:
        From 1 to min(n - 1, d); 0 where no image differs from another.

    Raises:
        InvalidInput: If the shape is another or a value is not finite.
    """
    if views.ndim != 3 or min(views.shape[:2]) < 2:
        raise InvalidInput(f"expected views (n, q, d) with n and q >= 2, got {views.shape}")
    n, q, d = views.shape
    values = _finite(views.reshape(-1, d), 4).reshape(n, q, d)
    means = values.mean(axis=1)
    between = means - means.mean(axis=0)
    if np.sum(between**2) <= _NOISE * np.sum(means**2):
        return 0.0
    within = (values - means[:, np.newaxis]).reshape(-1, d)
    scatter = within.T @ within / (n * (q - 1)) + ridge * np.eye(d)
    roots, vectors = np.linalg.eigh(scatter)
    whiten = vectors / np.sqrt(roots)
    projected = between @ whiten
    found = np.linalg.eigvalsh(projected.T @ projected / (n - 1)).clip(min=0.0)
    return spectral_rank(found)


def spectral_rank(spectrum: Eigenvalues) -> float:
    """Exponential of the entropy of the values' shares; 0 where all are 0."""
    total = float(spectrum.sum())
    if total <= 0.0:
        return 0.0
    shares = spectrum / total + _RANKME_EPSILON
    return float(np.exp(-np.sum(shares * np.log(shares))))


def _finite(z: npt.NDArray[np.floating], least: int) -> npt.NDArray[np.float64]:
    if z.ndim != 2 or len(z) < least or not z.shape[1]:
        raise InvalidInput(f"expected embeddings (n, d) with n at least {least}, got {z.shape}")
    values = z.astype(np.float64)
    if not np.isfinite(values).all():
        raise InvalidInput(f"expected finite embeddings, got some that are not, in {z.shape}")
    return values
