"""Neural collapse: do classes shrink to points that are spread as evenly as can be?"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput
from embedkit.types import Embeddings, Labels

__all__ = ["Collapse", "neural_collapse", "tolerance"]


@dataclass(frozen=True)
class Collapse:
    """Measures of Papyan, Han and Donoho (2020); all are 0 in full collapse.

    Attributes:
        within: NC1, ``tr(S_w S_b^+) / c``: spread within classes against that between them.
        norms: NC2, coefficient of variation of the distances of class means from their mean.
        angles: NC2, mean deviation of the cosines between centred class means from
            ``-1 / (c - 1)``.
        disagreement: NC4 in part: share of images nearer (Euclidean) to another class's mean.
    """

    within: float
    norms: float
    angles: float
    disagreement: float


def neural_collapse(z: Embeddings, labels: Labels) -> Collapse:
    """Measure how far the classes have collapsed.

    Where all class means are equal, ``within`` is infinite unless nothing differs at all; then,
    as for the other measures, the worst value that can be computed is given: see ``Returns``.

    Args:
        z: (n, d) embeddings or features.
        labels: (n,) class indices, at least two classes.

    Returns:
        The measures. If no class mean differs from another, ``within`` is NaN, ``norms`` is 0
        and ``angles`` is 1.

    Raises:
        InvalidInput: If shapes differ, there is one class alone or a value is not finite.
    """
    values = _checked(z, labels)
    classes, own = np.unique(labels, return_inverse=True)
    count = len(classes)
    if count < 2:
        raise InvalidInput(f"expected at least two classes, got only {classes.tolist()}")
    sums = np.zeros((count, values.shape[1]))
    np.add.at(sums, own, values)
    means = sums / np.bincount(own)[:, np.newaxis]
    centred = means - means.mean(axis=0)
    distances = np.linalg.norm(centred, axis=1)
    nearest = _nearest(values, means)
    disagreement = float(np.mean(nearest != own))
    if distances.max() <= 1e-7 * max(float(np.linalg.norm(means, axis=1).max()), 1e-30):
        return Collapse(float("nan"), 0.0, 1.0, disagreement)
    within = values - means[own]
    # tr(S_w S_b^+) needs the directions of the class means alone.
    _, singular, basis = np.linalg.svd(centred / np.sqrt(count), full_matrices=False)
    kept = singular > 1e-7 * singular[0]
    along = within @ basis[kept].T
    ratio = np.sum((along**2).mean(axis=0) / singular[kept] ** 2)
    directions = centred / np.maximum(distances, 1e-30)[:, np.newaxis]
    cosines = (directions @ directions.T)[~np.eye(count, dtype=bool)]
    return Collapse(
        float(ratio) / count,
        float(distances.std() / distances.mean()),
        float(np.mean(np.abs(cosines + 1 / (count - 1)))),
        disagreement,
    )


def tolerance(z: Embeddings, labels: Labels) -> float:
    """Mean cosine of two images of the same class (Wang and Liu 2021).

    The price of uniformity: embeddings spread evenly keep images of one class apart.

    Args:
        z: (n, d) embeddings of length 1.
        labels: (n,) class indices; a class of one image has no pair.

    Returns:
        From -1 to 1; NaN if no two images share a class.

    Raises:
        InvalidInput: If shapes differ or a value is not finite.
    """
    values = _checked(z, labels)
    total, pairs = 0.0, 0
    for label in np.unique(labels):
        members = values[labels == label]
        n = len(members)
        # All pairs at once: |sum|^2 is the sum of all products, each image's own included.
        total += float(np.sum(members.sum(axis=0) ** 2) - np.sum(members**2))
        pairs += n * (n - 1)
    return total / pairs if pairs else float("nan")


def _nearest(
    values: npt.NDArray[np.float64], means: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """Row of the nearest mean; the first among equals up to rounding."""
    gaps = np.sum(means**2, axis=1) - 2 * values @ means.T
    least = gaps.min(axis=1, keepdims=True)
    scale = np.abs(gaps).max(axis=1, keepdims=True)
    found: npt.NDArray[np.int64] = (gaps <= least + 1e-12 * scale).argmax(axis=1)
    return found


def _checked(z: Embeddings, labels: Labels) -> npt.NDArray[np.float64]:
    if z.ndim != 2 or labels.shape != (len(z),) or not len(z):
        raise InvalidInput(
            f"expected embeddings (n, d) and labels (n,), got {z.shape} and {labels.shape}"
        )
    values = z.astype(np.float64)
    if not np.isfinite(values).all():
        raise InvalidInput(f"expected finite embeddings, got some that are not, in {z.shape}")
    return values
