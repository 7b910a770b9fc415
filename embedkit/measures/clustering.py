"""How well groups that were found without labels agree with the classes."""

from typing import Annotated

import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput
from embedkit.types import Labels

__all__ = [
    "Contingency",
    "adjusted_rand",
    "contingency",
    "normalised_mutual_information",
    "purity",
]

Contingency = Annotated[npt.NDArray[np.float64], "... c g"]
"""How many images of each class (row) lie in each group (column); leading axes are tables."""


def contingency(labels: Labels, groups: Labels) -> Contingency:
    """Count the images of each class in each group, (c, g).

    Args:
        labels: (n,) class of each image, any integers.
        groups: (n,) group of each image, any integers.

    Raises:
        InvalidInput: If the lengths differ or there is no image.
    """
    if labels.shape != groups.shape or labels.ndim != 1 or not len(labels):
        raise InvalidInput(
            f"expected one class and one group per image, got {labels.shape} and {groups.shape}"
        )
    classes, rows = np.unique(labels, return_inverse=True)
    found, columns = np.unique(groups, return_inverse=True)
    cells = rows * len(found) + columns
    counts = np.bincount(cells, minlength=len(classes) * len(found))
    return counts.reshape(len(classes), len(found)).astype(np.float64)


def normalised_mutual_information(table: Contingency) -> npt.NDArray[np.float64]:
    """Mutual information over the mean of the two entropies (Kvålseth 1987), per table.

    Returns:
        From 0 (groups say nothing of classes) to 1 (they are the classes); 0 where neither
        classes nor groups differ.
    """
    shares = table / table.sum(axis=(-2, -1), keepdims=True)
    rows, columns = shares.sum(axis=-1), shares.sum(axis=-2)
    entropies = _entropy(rows), _entropy(columns)
    joint = _entropy(shares.reshape(*shares.shape[:-2], -1))
    mean = (entropies[0] + entropies[1]) / 2
    shared = np.maximum(entropies[0] + entropies[1] - joint, 0.0)
    # Entropies of one group differ from 0 by rounding.
    known = mean > 1e-12
    return np.where(known, np.minimum(shared / np.where(known, mean, 1.0), 1.0), 0.0)


def adjusted_rand(table: Contingency) -> npt.NDArray[np.float64]:
    """Share of pairs on which classes and groups agree, corrected for chance, per table.

    Hubert and Arabie (1985). About 0 for random groups, 1 for the classes themselves, negative
    for groups that agree less than chance would.
    """
    n = table.sum(axis=(-2, -1))
    together = _pairs(table).sum(axis=(-2, -1))
    rows = _pairs(table.sum(axis=-1)).sum(axis=-1)
    columns = _pairs(table.sum(axis=-2)).sum(axis=-1)
    chance = rows * columns / np.maximum(_pairs(n), 1.0)
    most = (rows + columns) / 2
    room = most - chance
    return np.where(room > 0, (together - chance) / np.where(room > 0, room, 1.0), 0.0)


def purity(table: Contingency) -> npt.NDArray[np.float64]:
    """Share of images that have the commonest class of their group, per table.

    Returns:
        A fraction; as many groups as images give 1, so compare only equal numbers of groups.
    """
    best: npt.NDArray[np.float64] = table.max(axis=-2).sum(axis=-1)
    return np.asarray(best / table.sum(axis=(-2, -1)))


def _entropy(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    logs = np.log(np.where(shares > 0, shares, 1.0))
    entropy: npt.NDArray[np.float64] = -(shares * logs).sum(axis=-1)
    return entropy


def _pairs(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(counts * (counts - 1) / 2)
