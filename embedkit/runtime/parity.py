"""Parity: how far two embedders that should be one are apart."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from embedkit.errors import InvalidInput
from embedkit.types import Embedder, Embeddings, Images

__all__ = ["BATCH_SIZES", "BatchParity", "Parity", "compare", "difference"]

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


def compare(
    first: Embedder,
    second: Embedder,
    images: Images,
    *,
    batch_sizes: Sequence[int] = BATCH_SIZES,
) -> Parity:
    """Embed the same images with both, in batches of every size, and measure the difference.

    Args:
        first: The reference.
        second: What is compared with it.
        images: (n, h, w, c) uint8, n >= 1. Where n is smaller than a batch size, the images
            are repeated, so that every batch has exactly its size.
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
    batches = []
    for size in batch_sizes:
        rows = np.arange(-(-len(images) // size) * size) % len(images)
        pairs = [
            (first.embed(images[part]), second.embed(images[part]))
            for part in np.split(rows, len(rows) // size)
        ]
        error, cosine = difference(
            np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs])
        )
        batches.append(BatchParity(size, error, cosine))
    return Parity(
        max_abs_error=max(batch.max_abs_error for batch in batches),
        min_cosine=min(batch.min_cosine for batch in batches),
        n=len(images),
        batches=tuple(batches),
    )


def difference(first: Embeddings, second: Embeddings) -> tuple[float, float]:
    """Return largest coordinate difference and smallest cosine of paired rows, (n, d) each.

    A coordinate that is not a number makes the error infinite and the cosine -1; two zero
    vectors are equal, hence of cosine 1.
    """
    a, b = first.astype(np.float64), second.astype(np.float64)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("inf"), -1.0
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines = (a * b).sum(axis=1) / np.where(norms > 0, norms, 1)
    both_zero = ~a.any(axis=1) & ~b.any(axis=1)
    error = np.abs(a - b).max(initial=0.0)
    return float(error), float(np.where(both_zero, 1.0, cosines).min(initial=1.0))
