"""Do two models see the same similarities? Centred kernel alignment."""

import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput
from embedkit.types import Embeddings

__all__ = ["linear_cka"]


def linear_cka(first: Embeddings, second: Embeddings) -> float:
    """Linear CKA of two models' embeddings of the same images (Kornblith et al. 2019).

    ``||Y'X||_F^2 / (||X'X||_F ||Y'Y||_F)`` with centred columns. It does not change when a
    model's embeddings are rotated or scaled. With fewer images than dimensions it is biased
    upwards.

    Args:
        first: (n, d) embeddings of one model.
        second: (n, e) embeddings of the other, in the same order.

    Returns:
        From 0 (nothing in common) to 1 (equal up to rotation and scale); 0 where one of the
        models gives every image the same embedding.

    Raises:
        InvalidInput: If the numbers of images differ, there are fewer than two, or a value is
            not finite.
    """
    if first.ndim != 2 or second.ndim != 2 or len(first) != len(second) or len(first) < 2:
        raise InvalidInput(
            "expected embeddings (n, d) and (n, e) of the same n >= 2, got "
            f"{first.shape} and {second.shape}"
        )
    x, y = _centred(first), _centred(second)
    own = _norm(x, x) * _norm(y, y)
    return float(min(_norm(x, y) ** 2 / own, 1.0)) if own > 0 else 0.0


def _centred(z: Embeddings) -> npt.NDArray[np.float64]:
    values = z.astype(np.float64)
    if not np.isfinite(values).all():
        raise InvalidInput(f"expected finite embeddings, got some that are not, in {z.shape}")
    centred = values - values.mean(axis=0)
    # What rounding leaves of equal embeddings is no similarity.
    noise = np.abs(centred).max() <= 1e-9 * np.abs(values).max(initial=0.0)
    return np.zeros_like(centred) if noise else centred


def _norm(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> float:
    """The Frobenius norm of ``X'Y``."""
    return float(np.linalg.norm(x.T @ y))
