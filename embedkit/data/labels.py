"""Class names and class indices: one order for every format."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput
from embedkit.types import Labels

__all__ = ["MAX_CLASSES", "class_order", "index_labels", "numbered_names", "read_labels"]

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


def read_labels(
    columns: Mapping[str, npt.NDArray[np.generic]],
    key: str,
    classes: npt.NDArray[np.generic] | None,
    source: str,
) -> tuple[Labels, tuple[str, ...]]:
    """Labels of one split, and class names that hold for all splits.

    Args:
        columns: Labels of every split, as class indices or as names, (n,) or (n, 1).
        key: Which of ``columns`` is wanted.
        classes: Names of the class indices, or None to find them in ``columns``.
        source: What the labels belong to, for messages.

    Raises:
        InvalidInput: If a label is neither an index nor a name of ``classes``.
    """
    rows = {name: column.reshape(-1) for name, column in columns.items() if _is_row(column)}
    wanted = rows.get(key, columns[key])
    source = f"{key} in {source}"
    is_named = wanted.dtype.kind == "U"
    if classes is not None:
        class_names = tuple(str(name) for name in classes)
    elif is_named:
        class_names = class_order(str(name) for row in rows.values() for name in row)
    else:
        counted = [row for row in rows.values() if row.dtype.kind != "U"]
        class_names = max((numbered_names(row, source) for row in counted), key=len, default=())
    if is_named:
        names = [str(name) for name in wanted]
        unknown = sorted(set(names) - set(class_names))
        if unknown:
            raise InvalidInput(
                f"expected {source} to be names in 'classes', got {', '.join(unknown[:5])}"
            )
        return index_labels(names, class_names), class_names
    needed = len(numbered_names(wanted, source))
    if needed > len(class_names):
        raise InvalidInput(
            f"expected {source} from 0 to {len(class_names) - 1}, for the "
            f"{len(class_names)} names in 'classes', got {needed - 1}"
        )
    return wanted.astype(np.int64), class_names


def _is_row(column: npt.NDArray[np.generic]) -> bool:
    return column.ndim == 1 or (column.ndim == 2 and column.shape[1] == 1)
