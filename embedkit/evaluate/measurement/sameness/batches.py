"""Whether an image's embedding depends on the images that travel with it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.types import Embedder, Embeddings, Images

__all__ = ["Batched", "embed_in_batches", "measure_batches"]

SIZES = (2, 7, 64)
"""Images per call that are compared with one image per call."""

NEIGHBOURS, ORDERS = 8, 3


@dataclass(frozen=True)
class Batched:
    """One model's embeddings of the same images in different company, (n, d) each.

    Attributes:
        alone: One image per call.
        sizes: By images per call.
        companies: In calls of the same size, each time among other images.
    """

    alone: Embeddings
    sizes: dict[int, Embeddings]
    companies: tuple[Embeddings, ...]


def measure_batches(
    model: Embedder,
    images: Images,
    rng: np.random.Generator,
    *,
    sizes: Sequence[int] = SIZES,
) -> Batched:
    """Embed the images alone, in batches of several sizes, and among changing neighbours.

    Args:
        model: What embeds them.
        images: (n, h, w, c) uint8, n >= 1.
        rng: Draws the neighbours.
        sizes: Images per call.
    """
    order = np.arange(len(images))
    return Batched(
        embed_in_batches(model, images, order, 1),
        {size: embed_in_batches(model, images, order, size) for size in sizes},
        tuple(
            embed_in_batches(model, images, rng.permutation(len(images)), NEIGHBOURS)
            for _ in range(ORDERS)
        ),
    )


def embed_in_batches(
    model: Embedder, images: Images, order: npt.NDArray[np.int64], size: int
) -> Embeddings:
    """Embeddings in the order of ``images``, computed ``size`` at a time in another order.

    Args:
        model: What embeds them.
        images: (n, h, w, c) uint8.
        order: (n,) a permutation. Where n is no multiple of ``size``, its first images fill
            the last batch, so that every batch has exactly this size.
        size: Images per call.
    """
    rows = np.resize(order, -(-len(order) // size) * size)
    z = np.empty((len(images), model.dim), np.float32)
    for part in reversed(np.split(rows, len(rows) // size)):
        # Backwards, so that an image which also fills the last batch keeps its own place.
        z[part] = model.embed(images[part])
    return z
