"""Which image each entry of an array is about, so that two reports are paired by image."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.evaluate.measurement.comparison.notes import other_options
from embedkit.evaluate.measurement.comparison.stored import Arrays, Stored

__all__ = ["Entries", "Rows", "common_rows", "entries_of", "unequal_keys"]

Rows = npt.NDArray[np.int64]

_KEYS = ("ids", "index", "queries")
# Of the task risk: all test and all training images, in their order.
_WHOLE = {"wrong_test": "test", "wrong_fitted": "train"}
# A seeded choice of training images, which may be as many as there are test images.
_CHOSEN = ("wrong_held_out", "source_correct")
_SUCCESS = "success"


@dataclass(frozen=True, eq=False)
class Entries:
    """An array of items with the images that they are about.

    Attributes:
        name: Of what is compared.
        values: (n,) one per image.
        about: (n,) id or position of each image; None where the items do not say.
    """

    name: str
    values: npt.NDArray[np.generic]
    about: npt.NDArray[np.generic] | None = None


def entries_of(arrays: Arrays, name: str) -> Entries:
    """An array and its images.

    Attacks are run on the images that the model handles when clean, which are others for
    another model. What a model withstands is therefore told of every image examined: those it
    handles and that no attack turned, which is the metric ``accuracy`` of the same prefix.

    Args:
        arrays: The items of a task.
        name: One of them, (n,).
    """
    values, head = arrays[name], name.partition(".")[0]
    prefix = f"{head}." if f"{head}.index" in arrays else ""
    index, handled = arrays.get(f"{prefix}index"), arrays.get(f"{prefix}handled")
    if index is not None and handled is not None and index.shape == handled.shape:
        attacked = handled.astype(np.bool_)
        if values is not handled and len(values) == np.count_nonzero(attacked):
            if not name.endswith(_SUCCESS) or values.dtype != np.bool_:
                return Entries(name, values, index[attacked])
            standing = attacked.copy()
            standing[attacked] = ~values.astype(np.bool_)
            return Entries(f"{name.removesuffix(_SUCCESS)}accuracy", standing, index)
    for key in _KEYS:
        about = arrays.get(prefix + key)
        if about is not None and about.shape == values.shape:
            return Entries(name, values, about)
    return Entries(name, values)


def common_rows(
    pair: tuple[Entries, Entries], arrays: tuple[Arrays, Arrays], reports: tuple[Stored, Stored]
) -> tuple[Rows, Rows] | str:
    """The rows of both arrays that are about the same images, or why there are none.

    Args:
        pair: The arrays.
        arrays: All items of their task.
        reports: The reports that they are from, over the same test images.
    """
    first, second = pair
    n, m = len(first.values), len(second.values)
    one, other = first.about, second.about
    if one is not None and other is not None and not np.array_equal(one, other):
        if len(np.unique(one)) < n or len(np.unique(other)) < m:
            return "some images have the same id, and the reports have other images"
        common, rows, others = np.intersect1d(
            one, other, assume_unique=True, return_indices=True
        )
        if len(common):
            return rows.astype(np.int64), others.astype(np.int64)
    if n != m:
        return f"the reports have {n} and {m} items, and do not say that any image is in both"
    stated = one is not None and np.array_equal(one, other if other is not None else [])
    if stated or _same_choice(reports) or _is_whole(first.name, n, arrays, reports):
        return np.arange(n), np.arange(n)
    return "the runs had other seeds, options or training images, so it is of other images"


def unequal_keys(first: Arrays, second: Arrays) -> list[str]:
    """A note for each list of images that is not the same in both tasks' items."""
    found = []
    for name in first:
        one, other = first[name], second.get(name)
        if name.rsplit(".", 1)[-1] not in _KEYS or other is None or np.array_equal(one, other):
            continue
        common = len(np.intersect1d(one, other))
        found.append(
            f"{common} images are in both reports, of {len(one)} and {len(other)} ({name})"
        )
    return found


def _same_choice(reports: tuple[Stored, Stored]) -> bool:
    """Whether whatever was chosen by seed is the same in both."""
    first, second = reports
    return (
        first.run.get("seed") == second.run.get("seed")
        and first.digest("train") == second.digest("train")
        and not other_options(reports)
    )


def _is_whole(
    name: str, n: int, arrays: tuple[Arrays, Arrays], reports: tuple[Stored, Stored]
) -> bool:
    """Whether both arrays are of all images of a set, in their order."""
    if name in _CHOSEN:
        return False
    first, second = reports
    role = _WHOLE.get(name)
    if role is not None:
        return first.count(role) == n and first.digest(role) == second.digest(role)
    one, other = (each.get("labels", np.empty(0)) for each in arrays)
    return first.count("test") == n == len(one) and np.array_equal(one, other)
