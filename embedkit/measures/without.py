"""Measures of the embeddings without each group of images, for their intervals.

Every function takes the group of each image, (n,) of 0 to G - 1, and gives (G,) values: the
measure of all images but those of group g. Sums are taken apart by group, so that all of them
cost about as much as one.
"""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from embedkit.measures.geometry import kernel_sums
from embedkit.measures.hubness import skewness
from embedkit.measures.knn import Neighbours
from embedkit.measures.spectrum import decay, participation_ratio
from embedkit.types import Embeddings

__all__ = [
    "cka_without",
    "hubness_without",
    "measure_without",
    "spectra_without",
    "uniformity_without",
]

Groups = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]

_RANKME_EPSILON = 1e-7


def measure_without(
    measure: Callable[[npt.NDArray[np.int64]], float], groups: Groups
) -> Values:
    """Any measure, of the rows that are left.

    Args:
        measure: From row numbers, ascending, to its value.
        groups: (n,) group of each image.
    """
    count = int(groups.max()) + 1
    return np.array([measure(np.flatnonzero(groups != g)) for g in range(count)])


def uniformity_without(z: Embeddings, groups: Groups) -> Values:
    """Uniformity: the kernel's sums by pairs of groups give all of them."""
    sums = kernel_sums(z, groups)
    # Twice the pairs across g, less those inside it, which that counts twice.
    kept = sums.sum() - sums.sum(axis=0) - sums.sum(axis=1) + np.diagonal(sums)
    left = len(z) - np.bincount(groups)
    return np.asarray(np.log(kept / (left * (left - 1))))


def spectra_without(z: Embeddings, groups: Groups) -> dict[str, Values]:
    """``rankme``, ``participation_ratio`` and ``decay``."""
    found: dict[str, list[float]] = {"rankme": [], "participation_ratio": [], "decay": []}
    for gram, sums, _, left in _grams(z, z, groups):
        singular = np.sqrt(np.linalg.eigvalsh(gram).clip(min=0.0))
        total = float(singular.sum())
        shares = singular / total + _RANKME_EPSILON if total > 0 else np.ones(1)
        found["rankme"].append(float(np.exp(-np.sum(shares * np.log(shares)))))
        covariance = (gram - np.outer(sums, sums) / left) / (left - 1)
        spectrum = np.linalg.eigvalsh(covariance)[::-1].clip(min=0.0)
        found["participation_ratio"].append(participation_ratio(spectrum))
        found["decay"].append(decay(spectrum))
    return {name: np.array(values) for name, values in found.items()}


def cka_without(first: Embeddings, second: Embeddings, groups: Groups) -> Values:
    """Linear CKA of two models; 0 where one of them gives every image the same."""
    norms = [
        [
            float(np.sum((gram - np.outer(left_sums, right_sums) / left) ** 2))
            for gram, left_sums, right_sums, left in _grams(x, y, groups)
        ]
        for x, y in ((first, second), (first, first), (second, second))
    ]
    across, own, other = np.array(norms)
    product = np.sqrt(own * other)
    return np.asarray(np.where(product > 0, across / np.where(product > 0, product, 1), 0))


def hubness_without(neighbours: Neighbours, groups: Groups, k: int) -> Values:
    """Skewness of the occurrences among the k nearest of those that are left.

    Args:
        neighbours: (n, m) nearest others of each image, best first; m well above k, because
            those that are left out make room.
        groups: (n,) group of each image.
        k: Neighbours that count.
    """

    def measure(rows: npt.NDArray[np.int64]) -> float:
        is_left = np.zeros(len(neighbours), bool)
        is_left[rows] = True
        near = neighbours[rows]
        there = is_left[near]
        there &= np.cumsum(there, axis=1) <= k
        counts = np.bincount(near[there], minlength=len(neighbours))
        return skewness(counts[rows])

    return measure_without(measure, groups)


def _grams(
    x: Embeddings, y: Embeddings, groups: Groups
) -> Iterator[tuple[Values, Values, Values, int]]:
    """``X'Y``, both sums and the number of images, without each group."""
    a = x.astype(np.float64)
    b = a if y is x else y.astype(np.float64)
    total, sums = a.T @ b, (a.sum(axis=0), b.sum(axis=0))
    for g in range(int(groups.max()) + 1):
        rows = groups == g
        part, other = a[rows], b[rows]
        left = len(a) - int(rows.sum())
        yield (
            total - part.T @ other,
            sums[0] - part.sum(axis=0),
            sums[1] - other.sum(axis=0),
            left,
        )
