"""Groups: the images as the encoder sees them now, clustered for the batches to come."""

import torch

from embedkit.train.images import Groups, TrainingImages, seed_of
from embedkit.train.images.order import Clusters
from embedkit.train.learner import State
from embedkit.train.recipe import Recipe
from embedkit.train.supply.features import embed_some
from embedkit.train.terms import k_means

__all__ = ["even_clusters", "regroup"]

_ITERATIONS = 20
_SPLIT_ITERATIONS = 5
"""Of each split in two; NGAME needs no better ones."""


def regroup(recipe: Recipe, state: State, images: TrainingImages) -> Groups:
    """Cluster all images by the encoder's features.

    Args:
        recipe: Which kind of batches, how many or how large clusters.
        state: Whose encoder.
        images: All training images.
    """
    settings = recipe.sampling
    everything = torch.arange(len(images), device=images.images.device)
    features = torch.from_numpy(embed_some(state.learner.encoder, images, everything))
    z = torch.nn.functional.normalize(features, dim=1)
    seed = seed_of(recipe.seed, "groups", state.step)
    if settings.batches == "hard_negatives":
        clusters = even_clusters(z, settings.cluster_images, seed=seed)
    else:
        count = min(settings.clusters, len(images))
        clusters = k_means(z, count, iterations=_ITERATIONS, seed=seed)
    return Groups(settings.batches, clusters, state.step)


@torch.no_grad()
def even_clusters(z: torch.Tensor, size: int, *, seed: int) -> Clusters:
    """Clusters of exactly ``size`` images, but for the last, by halving again and again.

    Dahiya et al. (2023), NGAME, section 4: a balanced tree of 2-means. Both halves of a split
    are whole clusters, so that no small remainders arise on the way.

    Args:
        z: (n, d) float, of unit length.
        size: Images of a cluster, at least 1.
        seed: Of the first centres.
    """
    generator = torch.Generator().manual_seed(seed)
    clusters = torch.empty(len(z), dtype=torch.int64)
    waiting, made = [torch.arange(len(z))], 0
    while waiting:
        rows = waiting.pop()
        leaves = -(-len(rows) // size)
        if leaves == 1:
            clusters[rows] = made
            made += 1
            continue
        first, second = _halves(z[rows], (leaves // 2) * size, generator)
        waiting += [rows[second], rows[first]]
    return clusters


def _halves(
    z: torch.Tensor, count: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of two clusters, of which the first has exactly ``count``."""
    centres = z[torch.randperm(len(z), generator=generator)[:2]]
    for _ in range(_SPLIT_ITERATIONS):
        order = (z @ (centres[0] - centres[1])).argsort(descending=True, stable=True)
        first, second = order[:count], order[count:]
        centres = torch.stack([z[first].mean(dim=0), z[second].mean(dim=0)])
    return first, second
