"""The images that one of two models has right and the other wrong."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from embedkit.data.dataset import Dataset
from embedkit.data.labels import index_labels
from embedkit.errors import InvalidInput
from embedkit.evaluate.measurement.comparison import Stored
from embedkit.evaluate.measurement.figures import png

__all__ = ["Flip", "Flips", "find_flips"]

_SHOWN = 16


@dataclass(frozen=True)
class Flip:
    """One image on which the models disagree.

    Attributes:
        image: PNG in base64.
        label: Its class.
        wrong: The class that the model which is wrong gives it; ``another class`` where the
            test set has none of the kind.
        id: Its path or position in the data set.
    """

    image: str
    label: str
    wrong: str
    id: str


@dataclass(frozen=True)
class Flips:
    """The disagreements of one kind of decision.

    Attributes:
        name: ``<task>.<item>``.
        only_first: Images that the first model alone has right, the first few.
        only_second: Images that the second alone has right.
        lost: How many the first alone has right.
        won: How many the second alone has right.
    """

    name: str
    only_first: tuple[Flip, ...]
    only_second: tuple[Flip, ...]
    lost: int
    won: int


def find_flips(first: Stored, second: Stored, test: Dataset) -> list[Flips]:
    """The flips of each task's first kind of prediction.

    Args:
        first: The report of model A.
        second: The report of model B.
        test: The test images of both, which reports do not hold.

    Raises:
        InvalidInput: If these are other images than those of the reports.
    """
    test = _as_evaluated(first, test)
    for report in (first, second):
        if report.digest("test") != test.digest:
            raise InvalidInput(
                f"expected the test images of {report.path}, {report.digest('test')}, got "
                f"{test.name} with {test.digest}; give the --test of the evaluation"
            )
    found = []
    for task in first.results:
        one, other = first.items(task), second.items(task)
        name = next((n for n in one if n.startswith("predictions") and n in other), None)
        labels = one.get("labels")
        if name is None or labels is None or len(labels) != len(test):
            continue
        found.append(_flips(f"{task}.{name}", test, (one[name], other[name]), labels))
    return found


def _as_evaluated(report: Stored, test: Dataset) -> Dataset:
    """The data set with the class indices that the evaluation gave it: the training set's."""
    data = report.values["data"]
    entry = data["test"] if isinstance(data, dict) else {}
    names = tuple(map(str, entry.get("class_names", ())))
    if test.labels is None or test.class_names == names or not {*test.class_names} <= {*names}:
        return test
    labels = index_labels([test.class_names[label] for label in test.labels], names)
    return replace(test, labels=labels, class_names=names, digest="")


def _flips(
    name: str,
    test: Dataset,
    predictions: tuple[npt.NDArray[np.generic], npt.NDArray[np.generic]],
    labels: npt.NDArray[np.generic],
) -> Flips:
    right = [np.asarray(p == labels) for p in predictions]
    lost, won = (np.flatnonzero(a & ~b) for a, b in (right, right[::-1]))
    return Flips(
        name,
        _pictures(test, lost[:_SHOWN], labels, predictions[1]),
        _pictures(test, won[:_SHOWN], labels, predictions[0]),
        len(lost),
        len(won),
    )


def _pictures(
    test: Dataset,
    rows: npt.NDArray[np.int64],
    labels: npt.NDArray[np.generic],
    wrong: npt.NDArray[np.generic],
) -> tuple[Flip, ...]:
    from embedkit.preprocess import decode

    names = test.class_names
    found = []
    for row in rows:
        image = test.images[row]
        pixels = decode(image) if isinstance(image, bytes) else image
        label, given = (_class_name(names, int(of[row])) for of in (labels, wrong))
        found.append(Flip(png(pixels), label, given, test.ids[row]))
    return tuple(found)


def _class_name(names: tuple[str, ...], index: int) -> str:
    """The name of a class; models may also answer with one that the test set does not have."""
    return names[index] if 0 <= index < len(names) else "another class"
