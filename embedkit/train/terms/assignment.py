"""Assignment: images to clusters, evenly (Sinkhorn-Knopp) or to the nearest (k-means)."""

import torch

__all__ = ["k_means", "sinkhorn"]


@torch.no_grad()
def sinkhorn(logits: torch.Tensor, iterations: int) -> torch.Tensor:
    """Soft assignment in which every cluster gets the same weight (Cuturi, 2013).

    The matrix ``exp(logits)`` is scaled by columns, then by rows, in turn, so that at the end
    every image's row is a distribution; computed in logarithms, which cannot overflow.

    Args:
        logits: (n, k) scores over their temperature, any float.
        iterations: Of both scalings, at least 1.

    Returns:
        (n, k) float32; rows sum to 1, columns to n / k the better the more iterations.
    """
    log_weights = logits.float()
    for _ in range(iterations):
        log_weights = log_weights - log_weights.logsumexp(dim=0, keepdim=True)
        log_weights = log_weights - log_weights.logsumexp(dim=1, keepdim=True)
    return log_weights.exp()


@torch.no_grad()
def k_means(
    vectors: torch.Tensor, clusters: int, *, iterations: int, seed: int
) -> torch.Tensor:
    """Lloyd's algorithm from k-means++ centres: the cluster of each vector.

    A cluster that loses all its vectors keeps its centre.

    Args:
        vectors: (n, d) float, n >= clusters.
        clusters: At least 1.
        iterations: At most this many; ends when no vector moves.
        seed: Of the first centres.

    Returns:
        (n,) int64, 0-based.
    """
    x = vectors.double()
    generator = torch.Generator(x.device).manual_seed(seed)
    centres = x[torch.randint(len(x), (1,), generator=generator, device=x.device)]
    nearest = torch.full((len(x),), float("inf"), dtype=x.dtype, device=x.device)
    for _ in range(clusters - 1):
        nearest = torch.minimum(nearest, (x - centres[-1]).square().sum(dim=1))
        # Fewer distinct vectors than clusters leave no distance to draw by.
        weights = nearest if nearest.sum() > 0 else torch.ones_like(nearest)
        centres = torch.cat([centres, x[torch.multinomial(weights, 1, generator=generator)]])
    labels = torch.cdist(x, centres).argmin(dim=1)
    for _ in range(iterations):
        sums = torch.zeros_like(centres).index_add_(0, labels, x)
        counts = labels.bincount(minlength=clusters).unsqueeze(1)
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
        moved = torch.cdist(x, centres).argmin(dim=1)
        if torch.equal(moved, labels):
            break
        labels = moved
    return labels
