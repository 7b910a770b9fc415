"""The images that a run was trained on, read as its recipe reads them."""

import tomllib

import numpy as np

from embedkit.data.dataset import Dataset
from embedkit.data.source import load_dataset
from embedkit.errors import BadImage, InvalidInput
from embedkit.export.quantize import CALIBRATION_IMAGES
from embedkit.export.source import Source
from embedkit.preprocess import decode
from embedkit.train.images.lazy import LazyDataset, open_lazily
from embedkit.types import Images

__all__ = ["training_images"]

_STREAMED = 2 * CALIBRATION_IMAGES
"""Images taken of a stream: as many to calibrate on as to compare with."""


def training_images(source: Source) -> Dataset | None:
    """The training images, of data that was streamed 512 evenly spaced ones.

    Args:
        source: Names the data; its recipe says how much of them was used, and how it was read.

    Returns:
        None where the source names no data.

    Raises:
        EmbedkitError: If they cannot be read.
    """
    if not source.data:
        return None
    settings = tomllib.loads(source.recipe.decode()).get("data", {})
    limit = int(settings.get("limit", 0))
    if settings.get("stream"):
        lazy = open_lazily(source.data)
        return _spaced(lazy.first(limit) if 0 < limit < len(lazy) else lazy)
    dataset = load_dataset(source.data)
    return dataset.subset(np.arange(limit)) if 0 < limit < len(dataset) else dataset


def _spaced(lazy: LazyDataset) -> Dataset:
    """Evenly spaced images, without those that cannot be read."""
    places = np.linspace(0, len(lazy) - 1, min(len(lazy), _STREAMED)).round().astype(np.int64)
    found = {int(place): _readable(lazy, int(place)) for place in places}
    kept = [place for place, image in found.items() if image is not None]
    if not kept:
        raise InvalidInput(
            f"expected a readable image among {len(places)} of {lazy.name}, got none; make "
            "them readable, or give other images"
        )
    arrays = [image for image in found.values() if isinstance(image, np.ndarray)]
    files = tuple(image for image in found.values() if isinstance(image, bytes))
    return Dataset(
        lazy.name,
        files or np.concatenate(arrays),
        None if lazy.labels is None else lazy.labels[kept],
        lazy.class_names,
        tuple(lazy.ids[place] for place in kept),
    )


def _readable(lazy: LazyDataset, place: int) -> bytes | Images | None:
    try:
        image = lazy.read(place)
        if isinstance(image, bytes):
            decode(image)
    except (BadImage, OSError):
        return None
    return image
