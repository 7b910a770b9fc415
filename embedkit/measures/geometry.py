"""How embeddings lie on the sphere: collapse shows here before any accuracy does."""

import math

import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput
from embedkit.types import Embeddings

__all__ = ["alignment", "effective_rank", "embedding_std", "kernel_sums", "uniformity"]

_BLOCK_ROWS = 1024
# Added to each share, as RankMe does, so that the logarithm of an absent direction is finite.
_RANKME_EPSILON = 1e-7


def alignment(first: Embeddings, second: Embeddings) -> float:
    """Mean squared distance between two views of the same images (Wang and Isola 2020).

    Args:
        first: (n, d) embeddings of length 1.
        second: (n, d) embeddings of the other view, in the same order.

    Returns:
        From 0 (views agree) to 4 (opposite); 2 is what unrelated directions give.

    Raises:
        InvalidInput: If the shapes differ, a set is empty or a value is not finite.
    """
    if first.shape != second.shape:
        raise InvalidInput(
            f"expected two views of the same shape, got {first.shape} and {second.shape}"
        )
    difference = _checked(first, 1) - _checked(second, 1)
    return float(np.mean(np.sum(difference * difference, axis=1)))


def uniformity(z: Embeddings, *, sharpness: float = 2.0) -> float:
    """Logarithm of the mean of ``exp(-t * squared distance)`` over all pairs of images.

    Args:
        z: (n, d) embeddings of length 1, n at least 2.
        sharpness: The paper's t, above 0.

    Returns:
        From ``-4 t`` to 0; smaller is more evenly spread, and 0 is a complete collapse.

    Raises:
        InvalidInput: If there are fewer than two images or a value is not finite.
    """
    count = len(_checked(z, 2))
    total = float(kernel_sums(z, np.zeros(count, np.int64), sharpness=sharpness).sum())
    return math.log(total / (count * (count - 1)))


def kernel_sums(
    z: Embeddings, groups: npt.NDArray[np.int64], *, sharpness: float = 2.0
) -> npt.NDArray[np.float64]:
    """Sum of ``exp(-t * squared distance)`` over the pairs of images of two groups, (g, g).

    Args:
        z: (n, d) embeddings of length 1.
        groups: (n,) from 0; entry (a, b) is over ordered pairs of group a with group b, without
            an image's pair with itself.
        sharpness: t, above 0.

    Raises:
        InvalidInput: If the set is empty or a value is not finite.
    """
    values = _checked(z, 1)
    squares = np.sum(values * values, axis=1)
    member = np.eye(int(groups.max()) + 1)[groups]
    sums = np.zeros((member.shape[1], member.shape[1]))
    for start in range(0, len(values), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        distances = squares[block, np.newaxis] + squares - 2.0 * (values[block] @ values.T)
        kernel = np.exp(-sharpness * np.maximum(distances, 0.0))
        # Each image's pair with itself is no pair.
        kernel[np.arange(len(kernel)), np.arange(start, start + len(kernel))] = 0.0
        sums += member[block].T @ (kernel @ member)
    return sums


def effective_rank(z: Embeddings) -> float:
    """Number of directions in use: RankMe (Garrido et al. 2023).

    The exponential of the entropy of the singular values' shares, of the matrix as it is
    (not centred).

    Args:
        z: (n, d) embeddings or features; some thousand images for a stable value.

    Returns:
        From 1 (one direction) to min(n, d); 0 where all values are zero.

    Raises:
        InvalidInput: If the set is empty or a value is not finite.
    """
    singular = np.linalg.svd(_checked(z, 1), compute_uv=False)
    total = float(singular.sum())
    if total == 0.0:
        return 0.0
    shares = singular / total + _RANKME_EPSILON
    return math.exp(-float(np.sum(shares * np.log(shares))))


def embedding_std(z: Embeddings) -> float:
    """Standard deviation over images of one dimension, averaged over dimensions.

    Args:
        z: (n, d) embeddings of length 1.

    Returns:
        In the unit of the embeddings: about ``1 / sqrt(d)`` when spread evenly, 0 when every
        image has the same embedding.

    Raises:
        InvalidInput: If the set is empty or a value is not finite.
    """
    return float(np.mean(np.std(_checked(z, 1), axis=0)))


def _checked(z: Embeddings, least: int) -> npt.NDArray[np.float64]:
    if z.ndim != 2 or len(z) < least or not z.shape[1]:
        raise InvalidInput(f"expected embeddings (n, d) with n at least {least}, got {z.shape}")
    values = z.astype(np.float64)
    if not np.isfinite(values).all():
        raise InvalidInput(
            f"expected finite embeddings, got {int((~np.isfinite(values)).sum())} values that "
            f"are not, in {z.shape}"
        )
    return values
