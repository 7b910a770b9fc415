"""What every study takes and works with."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np

from embedkit.data.dataset import Dataset
from embedkit.errors import InvalidInput
from embedkit.types import Embedder, Images, Labels

__all__ = ["Progress", "TrainFn", "labels_of", "pixels_of", "silent"]

Progress = Callable[[str, float], None]
"""Called with a line and the fraction that is done."""


class TrainFn(Protocol):
    """Trains an encoder; the command line supplies it, so that evaluation never trains."""

    def __call__(self, images: Dataset, name: str) -> AbstractContextManager[Embedder]:
        """Train on the images and serve the model as long as the context lasts.

        Args:
            images: What the encoder may see.
            name: Of the model, unique within a study.
        """
        ...


def silent(message: str, done: float) -> None:
    """The progress callback of a study that shows none."""


def pixels_of(dataset: Dataset) -> Images:
    """The images as one array (n, h, w, c).

    Raises:
        InvalidInput: If they are encoded files, which a study would have to encode anew.
    """
    if not isinstance(dataset.images, np.ndarray):
        raise InvalidInput(
            f"expected the images of {dataset.name} as one array, got encoded files; "
            "write them to an .npz of one size first"
        )
    return dataset.images


def labels_of(dataset: Dataset) -> Labels:
    """The class of each image, (n,).

    Raises:
        InvalidInput: If there is none.
    """
    if dataset.labels is None:
        raise InvalidInput(f"expected labelled images in {dataset.name}, got no labels")
    return dataset.labels
