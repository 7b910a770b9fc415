"""Subsets: training images that are worth their time, by embeddings of a finished model."""

import math
from typing import Annotated

import torch

__all__ = ["ProxyEmbeddings", "k_centre", "most_similar"]

ProxyEmbeddings = Annotated[torch.Tensor, "n d"]
"""Unit vectors of all images by a finished model, float."""


@torch.no_grad()
def most_similar(z: ProxyEmbeddings, clusters: torch.Tensor, share: float) -> torch.Tensor:
    """Of each latent class, the images most like its others.

    Joshi and Mirzasoleiman (2023), Data-Efficient Contrastive Self-supervised Learning (SAS),
    algorithm 1: for each class V greedily choose S to maximise the similarity between chosen
    and left-out images, ``sum over i in V - S, j in S of s_ij``. A choice e gains ``sum over i
    in V - S of s_ie`` and loses ``sum over j in S of s_ej``. Of the paper's expected similarity
    of augmented views only that of the images themselves is taken, as in its one-augmentation
    variant, and negative similarities count as none.

    Args:
        z: Of all images.
        clusters: (n,) latent class of each, int64.
        share: Of each class that is chosen, in (0, 1], up to one image: of all images it is
            this share, rounded, and at least one.

    Returns:
        (m,) positions, ascending.
    """
    classes = [torch.nonzero(clusters == c).flatten() for c in torch.unique(clusters)]
    counts = _apportioned([len(rows) for rows in classes], share)
    chosen = [
        rows[_greedy(z[rows].float(), count)]
        for rows, count in zip(classes, counts, strict=True)
    ]
    return torch.cat(chosen).sort().values


def _apportioned(sizes: list[int], share: float) -> list[int]:
    """The share of each size, rounded so that they add up: largest remainders go up."""
    quotas = [share * size for size in sizes]
    counts = [math.floor(quota) for quota in quotas]
    missing = max(1, round(share * sum(sizes))) - sum(counts)
    order = sorted(range(len(sizes)), key=lambda c: counts[c] - quotas[c])
    for c in order[:missing]:
        counts[c] += 1
    return counts


def _greedy(z: torch.Tensor, count: int) -> torch.Tensor:
    """Choose one after the other; similarities are computed a row at a time."""
    gain = torch.stack([(z @ row).clamp(min=0).sum() - 1 for row in z])
    taken = torch.zeros(len(z), dtype=torch.bool, device=z.device)
    chosen = []
    for _ in range(count):
        best = int(gain.masked_fill(taken, -torch.inf).argmax())
        taken[best] = True
        chosen.append(best)
        # A chosen image is no longer left out (once), and counts against others (twice).
        gain -= 2 * (z @ z[best]).clamp(min=0)
    return torch.tensor(chosen, dtype=torch.int64, device=z.device)


@torch.no_grad()
def k_centre(z: ProxyEmbeddings, share: float) -> torch.Tensor:
    """Images such that every other one is close to one of them.

    Sener and Savarese (2018), Active Learning for CNNs: A Core-Set Approach, algorithm 1:
    greedily add the image that is farthest from all chosen ones, which is within a factor of
    two of the best radius. The first is the one closest to the mean.

    Args:
        z: Of all images.
        share: Of them that is chosen, in (0, 1].

    Returns:
        (m,) positions, ascending.
    """
    z = z.float()
    chosen = [int((z - z.mean(dim=0)).square().sum(dim=1).argmin())]
    nearest = (z - z[chosen[0]]).square().sum(dim=1)
    for _ in range(round(share * len(z)) - 1):
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, (z - z[chosen[-1]]).square().sum(dim=1))
    return torch.tensor(sorted(chosen), device=z.device)
