"""The images of an evaluation: known, novel near and far, and shifted."""

import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, TypedDict

from embedkit.errors import InvalidInput

if TYPE_CHECKING:
    from rich.console import Console

    from embedkit.data.source import Dataset

    Sets = dict[str, Dataset]

__all__ = ["Data", "Wanted", "load"]

_NOVEL: tuple[Literal["ood"], Literal["near"], Literal["far"]] = ("ood", "near", "far")


class Wanted(TypedDict):
    """The options that name data sets, as click hands them over."""

    train: str
    test: str
    ood: tuple[str, ...]
    near: tuple[str, ...]
    far: tuple[str, ...]
    shifted: tuple[str, ...]
    strict: bool


@dataclass(frozen=True)
class Data:
    """The images of a run.

    Attributes:
        train: Known images to fit on.
        test: Known images to score, in the training set's class indices.
        ood: Novel images, by name.
        near: Names of those that resemble the known ones.
        far: Names of those that do not.
        shifted: Known images that look otherwise, by name.
    """

    train: "Dataset"
    test: "Dataset"
    ood: "Sets"
    near: tuple[str, ...]
    far: tuple[str, ...]
    shifted: "Sets"


def load(options: Wanted, console: "Console") -> Data:
    """Read every data set."""
    from embedkit.data.source import align_labels, load_dataset

    read = partial(load_dataset, strict=options["strict"])

    def named(key: Literal["ood", "near", "far", "shifted"]) -> "Sets":
        found: Sets = {}
        for text in options[key]:
            dataset = read(text)
            name = re.sub(r"[^A-Za-z0-9_-]+", "_", dataset.name)
            if name in found or any(name in other for other in novel):
                raise InvalidInput(
                    f"expected OOD sets of different names, got {name!r} twice; rename a file"
                )
            found[name] = dataset
        return found

    novel: list[Sets] = []
    with console.status("reading the images"):
        train, test = read(options["train"]), read(options["test"])
        if train.labels is not None and test.labels is not None:
            test = align_labels(train, test)
        for key in _NOVEL:
            novel.append(named(key))
        shifted = named("shifted")
    either, near, far = novel
    return Data(train, test, {**either, **near, **far}, tuple(near), tuple(far), shifted)
