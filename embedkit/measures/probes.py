"""Classifiers without anything to tune: class means, and one Gaussian per class."""

import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput
from embedkit.measures.knn import unit
from embedkit.types import Embeddings, Labels

__all__ = ["naive_bayes", "nearest_centroid"]


def nearest_centroid(
    train_z: Embeddings, train_y: Labels, test_z: Embeddings, *, classes: int
) -> Labels:
    """Predict the class whose mean direction is nearest by cosine.

    The mean is that of the unit vectors, and is brought to length 1 again. A class without
    training images is never predicted; ties go to the smaller class.

    Args:
        train_z: (n, d) embeddings; normalised here.
        train_y: (n,) class indices.
        test_z: (m, d) embeddings; normalised here.
        classes: Number of classes.

    Returns:
        (m,) class indices.

    Raises:
        InvalidInput: If shapes do not match, a set is empty or a label is out of range.
    """
    _check(train_z, train_y, test_z, classes)
    means, present = _means(unit(train_z).astype(np.float64), train_y, classes)
    cosines = unit(test_z).astype(np.float64) @ unit(means).astype(np.float64).T
    cosines[:, ~present] = -np.inf
    return _first_best(cosines)


def naive_bayes(
    train_z: Embeddings,
    train_y: Labels,
    test_z: Embeddings,
    *,
    classes: int,
    smoothing: float = 1e-9,
) -> Labels:
    """Predict by Gaussian naive Bayes: dimensions are independent within a class.

    Args:
        train_z: (n, d) embeddings or features, as they are.
        train_y: (n,) class indices.
        test_z: (m, d) of the same kind.
        classes: Number of classes.
        smoothing: Added to every variance, as a share of the largest variance of a dimension
            over all images; with no variance at all it is the variance itself.

    Returns:
        (m,) class indices; a class without training images is never predicted, and ties go to
        the smaller class.

    Raises:
        InvalidInput: If shapes do not match, a set is empty or a label is out of range.
    """
    _check(train_z, train_y, test_z, classes)
    x, test = train_z.astype(np.float64), test_z.astype(np.float64)
    means, present = _means(x, train_y, classes)
    squares, _ = _means((x - means[train_y]) ** 2, train_y, classes)
    variances = squares + smoothing * (float(x.var(axis=0).max()) or 1.0)
    counts = np.bincount(train_y, minlength=classes)
    scores = np.full((len(test), classes), -np.inf)
    for label in np.flatnonzero(present):
        gaps = (test - means[label]) ** 2 / variances[label]
        density = gaps.sum(axis=1) + np.log(variances[label]).sum()
        scores[:, label] = np.log(counts[label] / len(x)) - density / 2
    return _first_best(scores)


def _means(
    values: npt.NDArray[np.float64], labels: Labels, classes: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Mean of each class, (c, d), 0 where it has no image; and whether it has any."""
    counts = np.bincount(labels, minlength=classes)
    sums = np.zeros((classes, values.shape[1]))
    for label in np.flatnonzero(counts):
        sums[label] = values[labels == label].sum(axis=0)
    return sums / np.maximum(counts, 1)[:, np.newaxis], counts > 0


def _first_best(scores: npt.NDArray[np.float64]) -> Labels:
    """The class of the best score; equal up to rounding counts as equal."""
    best = scores.max(axis=1, keepdims=True)
    close = scores >= best - 1e-9 * np.maximum(np.abs(best), 1.0)
    found: Labels = close.argmax(axis=1)
    return found


def _check(train_z: Embeddings, train_y: Labels, test_z: Embeddings, classes: int) -> None:
    if train_z.ndim != 2 or test_z.ndim != 2 or train_z.shape[1] != test_z.shape[1]:
        raise InvalidInput(
            "expected embeddings (n, d) and (m, d) of the same d, got "
            f"{train_z.shape} and {test_z.shape}"
        )
    if train_y.shape != (len(train_z),) or not len(train_z) or not len(test_z):
        raise InvalidInput(
            "expected at least one image in each set and one label per training image, got "
            f"{train_y.shape} for {len(train_z)}, and {len(test_z)}"
        )
    if not 0 <= train_y.min() <= train_y.max() < classes:
        raise InvalidInput(
            f"expected labels from 0 to {classes - 1}, got {train_y.min()} to {train_y.max()}"
        )
