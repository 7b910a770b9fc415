"""Class names and class indices: one order for every format."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput
from embedkit.types import Labels

__all__ = ["MAX_CLASSES", "class_order", "index_labels", "numbered_names"]

MAX_CLASSES = 100_000
"""Above this a column of numbers is an identifier taken for a class."""


def class_order(names: Iterable[str]) -> tuple[str, ...]:
    """Distinct names in class order: by number where all are numbers, else by code point.

    Example:
        >>> class_order(["10", "9", "10"])
        ('9', '10')
    """
    distinct = set(names)
    if all(name.isascii() and name.isdigit() for name in distinct):
        return tuple(sorted(distinct, key=lambda name: (int(name), name)))
    return tuple(sorted(distinct))


def index_labels(names: Sequence[str], class_names: Sequence[str]) -> Labels:
    """Class index of each name.

    Args:
        names: Class name of each image.
        class_names: Every class, in order; has every one of ``names``.
    """
    index = {name: position for position, name in enumerate(class_names)}
    return np.array([index[name] for name in names], dtype=np.int64)


def numbered_names(labels: npt.NDArray[np.generic], source: str) -> tuple[str, ...]:
    """Names ``"0"``, ``"1"``, ... up to the largest class index of labels without names.

    Args:
        labels: (n,) class indices, 0-based.
        source: What the labels belong to, for the message.

    Raises:
        InvalidInput: If they are not integers from 0 to ``MAX_CLASSES`` - 1.
    """
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise InvalidInput(
            f"expected the labels of {source} as integers (n,), got "
            f"{labels.dtype} {labels.shape}"
        )
    if not labels.size:
        return ()
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= MAX_CLASSES:
        raise InvalidInput(
            f"expected the labels of {source} to be class indices from 0 to "
            f"{MAX_CLASSES - 1:,}, got {low:,} to {high:,}"
        )
    return tuple(str(index) for index in range(high + 1))
