"""The Dataset: what every source of images becomes."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput
from embedkit.preprocess import InputSpec, prepare
from embedkit.types import Images, Labels

__all__ = ["Dataset", "Skipped", "content_digest"]


@dataclass(frozen=True)
class Skipped:
    """A file that was left out of a data set.

    Attributes:
        id: Path within the source.
        reason: What was expected and what was found.
    """

    id: str
    reason: str


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with their labels, whatever they were read from.

    Attributes:
        name: The file's or folder's name, without extension and split.
        images: (n, h, w, c) uint8, or the n encoded files as they are.
        labels: (n,) class indices, or None.
        class_names: Name of each class index; empty without labels.
        ids: Path or position of each image in its source; positions if not given.
        digest: ``sha256:...`` of images, labels and class names; computed if not given.
        skipped: Files of the source that could not be used.

    Raises:
        InvalidInput: If the lengths differ, an image array is not uint8 (n, h, w, 1 or 3), a
            label has no class name, or two classes have the same.
    """

    name: str
    images: Images | tuple[bytes, ...]
    labels: Labels | None = None
    class_names: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    digest: str = ""
    skipped: tuple[Skipped, ...] = ()

    def __post_init__(self) -> None:
        _check_images(self.name, self.images)
        if not self.ids:
            object.__setattr__(self, "ids", tuple(str(i) for i in range(len(self.images))))
        if len(self.ids) != len(self.images):
            raise InvalidInput(
                f"expected one id per image of {self.name}, got {len(self.ids)} for "
                f"{len(self.images)} images"
            )
        _check_labels(self)
        if not self.digest:
            digest = content_digest(self.images, self.labels, self.class_names)
            object.__setattr__(self, "digest", digest)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """Height, width and channels where all images are one array, else None."""
        if not isinstance(self.images, np.ndarray):
            return None
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    def arrays(self, spec: InputSpec) -> Images:
        """Every image at the model's size, (n, h, w, c) uint8; no copy where it already is.

        Raises:
            BadImage: If a file cannot be decoded.
        """
        return prepare(self.images, spec)

    def subset(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> "Dataset":
        """The images at ``indices``, in that order, with a digest of their own.

        Args:
            indices: Positions, 0-based; not a boolean mask.

        Raises:
            InvalidInput: If an index is out of range.
        """
        chosen = _checked_indices(indices, len(self))
        images: Images | tuple[bytes, ...]
        if isinstance(self.images, np.ndarray):
            images = self.images[chosen]
        else:
            images = tuple(self.images[index] for index in chosen)
        return replace(
            self,
            images=images,
            labels=None if self.labels is None else self.labels[chosen],
            ids=tuple(self.ids[index] for index in chosen),
            digest="",
        )


def content_digest(
    images: Images | Sequence[bytes], labels: Labels | None, class_names: Sequence[str]
) -> str:
    """``sha256:...`` over images, labels and class names; ids and paths do not count.

    Reads every byte once: about 1 s per GB.
    """
    digest = hashlib.sha256()
    if isinstance(images, np.ndarray):
        digest.update(f"array {images.shape}\n".encode())
        digest.update(np.ascontiguousarray(images).data)
    else:
        digest.update(f"files {len(images)}\n".encode())
        for data in images:
            digest.update(f"{len(data)}\n".encode())
            digest.update(data)
    digest.update(json.dumps(list(class_names)).encode())
    if labels is not None:
        digest.update(np.ascontiguousarray(labels, dtype="<i8").data)
    return f"sha256:{digest.hexdigest()}"


def _checked_indices(
    indices: Sequence[int] | npt.NDArray[np.int64], count: int
) -> npt.NDArray[np.int64]:
    given = np.asarray(indices)
    if given.size == 0:
        return np.zeros(0, dtype=np.int64)
    if given.ndim != 1 or given.dtype.kind not in "iu":
        raise InvalidInput(
            f"expected indices as a row of integers, got {given.dtype} {given.shape}"
            + ("; use numpy.flatnonzero(mask)" if given.dtype.kind == "b" else "")
        )
    if not 0 <= given.min() <= given.max() < count:
        raise InvalidInput(
            f"expected indices from 0 to {count - 1}, got {given.min()} to {given.max()}"
        )
    return given.astype(np.int64)


def _check_images(name: str, images: Images | tuple[bytes, ...]) -> None:
    if isinstance(images, tuple):
        return
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise InvalidInput(
            f"expected the images of {name} as uint8 (n, height, width, 1 or 3), got "
            f"{images.dtype} {images.shape}"
        )


def _check_labels(dataset: Dataset) -> None:
    labels, classes = dataset.labels, len(dataset.class_names)
    if len(set(dataset.class_names)) != classes:
        names = sorted({n for n in dataset.class_names if dataset.class_names.count(n) > 1})
        raise InvalidInput(
            f"expected every class of {dataset.name} to have a name of its own, got "
            f"{', '.join(names[:5])} more than once"
        )
    if labels is None:
        return
    if labels.shape != (len(dataset),) or labels.dtype != np.int64:
        raise InvalidInput(
            f"expected one int64 label for each of the {len(dataset)} images of "
            f"{dataset.name}, got {labels.dtype} {labels.shape}"
        )
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        raise InvalidInput(
            f"expected labels of {dataset.name} from 0 to {classes - 1}, for its {classes} "
            f"class names, got {labels.min()} to {labels.max()}"
        )
