"""Parity: how far two embedders that should be one are apart."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput
from embedkit.types import Embedder, Embeddings, Images

__all__ = [
    "BATCH_SIZES",
    "BatchParity",
    "Gaps",
    "Parity",
    "compare",
    "difference",
    "measure_gaps",
    "row_differences",
]

BATCH_SIZES = (1, 2, 3, 8, 64)


@dataclass(frozen=True)
class BatchParity:
    """The difference at one batch size.

    Attributes:
        batch_size: Images per call.
        max_abs_error: Largest difference of one coordinate of an embedding.
        min_cosine: Smallest cosine between the two embeddings of one image.
    """

    batch_size: int
    max_abs_error: float
    min_cosine: float


@dataclass(frozen=True)
class Parity:
    """The difference between two embedders over a set of images.

    Attributes:
        max_abs_error: The largest over all batch sizes.
        min_cosine: The smallest over all batch sizes.
        n: Images compared at each batch size.
        batches: One entry per batch size.
    """

    max_abs_error: float
    min_cosine: float
    n: int
    batches: tuple[BatchParity, ...]

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values."""
        values = asdict(self)
        values["batches"] = [asdict(batch) for batch in self.batches]
        return values


@dataclass(frozen=True)
class Gaps:
    """The difference between two embedders for each image and batch size.

    Attributes:
        batch_sizes: Images per call.
        errors: Largest difference of one coordinate, (batch sizes, n).
        cosines: Between the two embeddings, (batch sizes, n).
    """

    batch_sizes: tuple[int, ...]
    errors: npt.NDArray[np.float64]
    cosines: npt.NDArray[np.float64]

    def summary(self, images: slice = slice(None)) -> Parity:
        """The worst over some of the images, by default all."""
        errors, cosines = self.errors[:, images], self.cosines[:, images]
        return Parity(
            max_abs_error=float(errors.max()),
            min_cosine=float(cosines.min()),
            n=errors.shape[1],
            batches=tuple(
                BatchParity(size, float(errors[i].max()), float(cosines[i].min()))
                for i, size in enumerate(self.batch_sizes)
            ),
        )


def compare(
    first: Embedder,
    second: Embedder,
    images: Images,
    *,
    batch_sizes: Sequence[int] = BATCH_SIZES,
) -> Parity:
    """Embed the same images with both, in batches of every size, and return the worst.

    Args:
        first: The reference.
        second: What is compared with it.
        images: (n, h, w, c) uint8, n >= 1. Where n is no multiple of a batch size, the first
            images are repeated, so that every batch has exactly its size.
        batch_sizes: Images per call.

    Raises:
        InvalidInput: If there are no images, or the embedders differ in dimension.
    """
    return measure_gaps(first, second, images, batch_sizes=batch_sizes).summary()


def measure_gaps(
    first: Embedder,
    second: Embedder,
    images: Images,
    *,
    batch_sizes: Sequence[int] = BATCH_SIZES,
) -> Gaps:
    """Embed the same images with both, in batches of every size, and keep every difference.

    Args:
        first: The reference.
        second: What is compared with it.
        images: As in :func:`compare`.
        batch_sizes: Images per call.

    Raises:
        InvalidInput: If there are no images, or the embedders differ in dimension.
    """
    if len(images) == 0 or not batch_sizes or min(batch_sizes) < 1:
        raise InvalidInput(
            f"expected at least one image and batch size, got {len(images)} and {batch_sizes}"
        )
    if first.dim != second.dim:
        raise InvalidInput(
            f"expected embedders of one dimension, got {first.dim}, {second.dim}"
        )
    errors = np.zeros((len(batch_sizes), len(images)))
    cosines = np.ones_like(errors)
    for i, size in enumerate(batch_sizes):
        rows = np.arange(-(-len(images) // size) * size) % len(images)
        for part in np.split(rows, len(rows) // size):
            gaps = row_differences(first.embed(images[part]), second.embed(images[part]))
            np.maximum.at(errors[i], part, gaps[0])
            np.minimum.at(cosines[i], part, gaps[1])
    return Gaps(tuple(batch_sizes), errors, cosines)


def difference(first: Embeddings, second: Embeddings) -> tuple[float, float]:
    """Return largest coordinate difference and smallest cosine of paired rows, (n, d) each.

    As :func:`row_differences`, over all rows; (0, 1) where there are none.
    """
    errors, cosines = row_differences(first, second)
    return float(errors.max(initial=0.0)), float(cosines.min(initial=1.0))


def row_differences(
    first: Embeddings, second: Embeddings
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return largest coordinate difference and cosine of each pair of rows, (n,) both.

    A row with a coordinate that is not finite is infinitely far, at cosine -1; two zero vectors
    are equal, hence of cosine 1.
    """
    wrong = np.asarray(~(np.isfinite(first) & np.isfinite(second)).all(axis=1))
    a = np.where(wrong[:, np.newaxis], 0, first).astype(np.float64)
    b = np.where(wrong[:, np.newaxis], 0, second).astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines = (a * b).sum(axis=1) / np.where(norms > 0, norms, 1)
    cosines[~a.any(axis=1) & ~b.any(axis=1)] = 1.0
    errors = np.abs(a - b).max(axis=1, initial=0.0)
    return np.where(wrong, np.inf, errors), np.where(wrong, -1.0, cosines)
