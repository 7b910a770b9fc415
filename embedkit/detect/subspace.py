"""The directions in which known images hardly vary, and how far an image reaches into them."""

from dataclasses import dataclass

import numpy as np

from embedkit.bundle import Head
from embedkit.detect.detector import State
from embedkit.detect.vectors import Float64
from embedkit.errors import InvalidInput
from embedkit.types import Embeddings, Scores

__all__ = ["Complement", "default_dim", "fit_complement", "origin_of", "restore_complement"]


@dataclass(frozen=True)
class Complement:
    """An origin and the directions beyond the principal ones.

    Attributes:
        origin: (d,) float64, the paper's u.
        directions: (d, d - p) float64 with orthonormal columns, the paper's R.
    """

    origin: Float64
    directions: Float64

    def residual(self, found: Embeddings) -> Scores:
        """Return ||R'(z - u)|| of each of (n, d) vectors, (n,)."""
        away = np.asarray(found, dtype=np.float64) - self.origin
        return np.asarray(np.linalg.norm(away @ self.directions, axis=1))

    def state(self) -> State:
        """The two arrays."""
        return {"origin": self.origin, "directions": self.directions}


def default_dim(dim: int) -> int:
    """Principal directions for ``dim`` dimensions, as Wang et al. choose them."""
    if dim >= 2048:
        return 1000
    return 512 if dim >= 768 else dim // 2


def origin_of(head: Head) -> Float64:
    """Return u = -pinv(W) b, the point where all logits of the head are 0, (d,)."""
    weight, bias = np.asarray(head.weight, np.float64), np.asarray(head.bias, np.float64)
    return np.asarray(-np.linalg.pinv(weight) @ bias)


def fit_complement(found: Embeddings, origin: Float64, principal: int) -> Complement:
    """Split the space by the second moments of known images around an origin.

    Args:
        found: (n, d) vectors of known images.
        origin: (d,), the paper's u.
        principal: Directions of largest moment that are left out; 0 takes ``default_dim``.

    Raises:
        InvalidInput: If no direction would remain.
    """
    dim = found.shape[1]
    count = principal or default_dim(dim)
    if not 0 < count < dim:
        raise InvalidInput(
            f"expected 1 to {dim - 1} principal dimensions of {dim}, got {count}"
        )
    away = np.asarray(found, dtype=np.float64) - origin
    # eigh sorts by rising eigenvalue, so the first columns are the directions that remain.
    _, directions = np.linalg.eigh(away.T @ away / len(away))
    return Complement(origin, np.ascontiguousarray(directions[:, : dim - count]))


def restore_complement(origin: Float64, directions: Float64) -> Complement:
    """Return what :meth:`Complement.state` described.

    Raises:
        ValueError: If the shapes do not fit together.
    """
    if directions.ndim != 2 or origin.shape != directions.shape[:1]:
        raise ValueError(f"expected (d,) and (d, r), got {origin.shape}, {directions.shape}")
    return Complement(origin, directions)
