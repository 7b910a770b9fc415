"""Orders: which images of an epoch share a batch. Everything depends on seeds alone."""

import hashlib
from collections.abc import Callable
from typing import Annotated, NamedTuple

import torch

__all__ = ["Clusters", "Groups", "ImageOrder", "distinct_clusters", "hard_negatives", "seed_of"]

ImageOrder = Annotated[torch.Tensor, "n"]
"""Positions of images, int64, in the order in which an epoch takes them."""

Clusters = Annotated[torch.Tensor, "n"]
"""Cluster of each training image, int64, 0-based, on the CPU."""


class Groups(NamedTuple):
    """Clusters of all training images as the encoder saw them once.

    Attributes:
        kind: Name of the order that is made of them.
        clusters: Cluster of each image.
        step: Steps done when they were made.
    """

    kind: str
    clusters: Clusters
    step: int

    def order(self, batch_size: int, generator: torch.Generator) -> ImageOrder:
        """All images in the order of one epoch."""
        return _ORDERS[self.kind](self.clusters, batch_size, generator)


def seed_of(seed: int, purpose: str, number: int) -> int:
    """A generator seed, below 2**63, that is unrelated for every purpose and number."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def hard_negatives(
    clusters: Clusters, batch_size: int, generator: torch.Generator
) -> ImageOrder:
    """Whole clusters side by side, in random order: a batch is a few of them.

    A cluster that is smaller than the others comes last, so that it moves no other across the
    border of two batches.

    Dahiya et al. (2023), NGAME, algorithm 1: images of a small cluster are each other's hard
    negatives, and they meet in a batch without any search for them.

    Args:
        clusters: Small ones of equal size, but for what is left over.
        batch_size: Not needed: batches have whole clusters where it is a multiple of their
            size. Where it is not, a cluster is shared by two batches.
        generator: On the CPU.
    """
    del batch_size
    shuffled = torch.randperm(len(clusters), generator=generator)
    sizes = clusters.bincount()
    places = torch.randperm(len(sizes), generator=generator)
    places[sizes < sizes.max()] += len(sizes)
    return shuffled[places[clusters[shuffled]].argsort(stable=True)]


def distinct_clusters(
    clusters: Clusters, batch_size: int, generator: torch.Generator
) -> ImageOrder:
    """Batches whose images are of different clusters, as far as there are enough of these.

    Chakraborty et al. (2020), G-SimCLR, section 3: images of one pseudo-class are no negatives
    of each other. Each batch takes one image of every cluster, the fullest first, and goes
    round again only when no other cluster has an image left for it.

    Args:
        clusters: Pseudo-classes, of any size.
        batch_size: Images of a batch.
        generator: On the CPU.
    """
    shuffled = torch.randperm(len(clusters), generator=generator)
    count = int(clusters.max()) + 1
    waiting = [shuffled[clusters[shuffled] == c].tolist() for c in range(count)]
    order: list[int] = []
    while len(order) < len(clusters):
        needed = min(batch_size, len(clusters) - len(order))
        while needed:
            # Ties between equally full clusters are broken anew each time.
            ranks = torch.randperm(count, generator=generator).tolist()
            fullest = sorted(range(count), key=lambda c: (-len(waiting[c]), ranks[c]))
            for cluster in fullest[:needed]:
                if waiting[cluster]:
                    order.append(waiting[cluster].pop())
                    needed -= 1
    return torch.tensor(order)


_ORDERS: dict[str, Callable[[Clusters, int, torch.Generator], ImageOrder]] = {
    "hard_negatives": hard_negatives,
    "distinct_clusters": distinct_clusters,
}
