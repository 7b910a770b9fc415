"""What is wrong with the data of an evaluation, in sentences for the reader of the report."""

import hashlib

import numpy as np

from embedkit.data.dataset import Dataset
from embedkit.evaluate.context import Context

__all__ = ["class_problem", "head_leakage", "leakage", "shared_images"]


def class_problem(context: Context) -> str | None:
    """Why classes cannot be predicted from this data, or None if they can."""
    for role, dataset in (("training", context.train), ("test", context.test)):
        if dataset.labels is None:
            return (
                f"expected labels for the {role} images, got none in {dataset.name!r}; "
                "give class sub-folders, a CSV or an .npz with labels"
            )
        if len(np.unique(dataset.labels)) < 2:
            return (
                f"expected at least two classes among the {role} images of {dataset.name!r}, "
                "got one: with one class every prediction is right"
            )
    return None


def leakage(context: Context) -> tuple[str, ...]:
    """A warning if test images are also training images."""
    shared = shared_images(context.test, context.train)
    if not shared:
        return ()
    return (
        f"{shared} of {len(context.test)} test images are also training images: "
        "the scores are too good",
    )


def head_leakage(context: Context) -> tuple[str, ...]:
    """A warning if the bundle's head was fitted on the test images."""
    bundle = context.bundle
    if bundle is None or not bundle.names("heads"):
        return ()
    if bundle.head().data_digest != context.test.digest:
        return ()
    return (
        "the bundle's head was fitted on these test images: the scores of its classes are too "
        "good",
    )


def shared_images(dataset: Dataset, *others: Dataset) -> int:
    """How many images of a data set are in any of the others, byte for byte."""
    known = {digest for other in others for digest in _image_digests(other)}
    return sum(digest in known for digest in _image_digests(dataset))


def _image_digests(dataset: Dataset) -> list[bytes]:
    """16 bytes of BLAKE2 of each image, with its shape where it is an array."""
    images = dataset.images
    if not isinstance(images, np.ndarray):
        return [hashlib.blake2b(data, digest_size=16).digest() for data in images]
    shape = str(images.shape[1:]).encode()
    return [
        hashlib.blake2b(shape + image.tobytes(), digest_size=16).digest() for image in images
    ]
