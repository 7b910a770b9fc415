"""Contrast: every projection against every other of the batch, or against a memory."""

import math
from typing import Annotated, NamedTuple

import torch

from embedkit.train.batch import Projections
from embedkit.train.terms.views import exact_product, unit

__all__ = [
    "Pairs",
    "cross_view_similarity",
    "first_found",
    "image_pairs",
    "log_mean_exp",
    "pair_log_softmax",
    "positive_first",
    "squared_distances",
]

Similarities = Annotated[torch.Tensor, "n n"]


class Pairs(NamedTuple):
    """Similarities of two views of b images; row ``i * b + j`` is view i of image j.

    Attributes:
        positives: With the other view of the same image, (2b,).
        negatives: With both views of every other image, (2b, 2b); minus infinity elsewhere.
    """

    positives: torch.Tensor
    negatives: Similarities


def cross_view_similarity(projections: Projections, temperature: float) -> Similarities:
    """Cosine of every projection with every other, over the temperature.

    Args:
        projections: (v, b, d); views are stacked, so row ``i * b + j`` is view i of image j.
        temperature: Above 0.

    Returns:
        (v*b, v*b) float32 with minus infinity on the diagonal, so that a softmax over a row
        leaves the vector itself out.
    """
    z = unit(projections).flatten(0, 1)
    similarity = exact_product(z, z) / temperature
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    return similarity.masked_fill(itself, float("-inf"))


def image_pairs(projections: Projections, temperature: float = 1.0) -> Pairs:
    """Cosines over the temperature, the positive apart from the negatives.

    Args:
        projections: Two views, (2, b, d).
        temperature: Above 0.
    """
    first, second = unit(projections)
    positives = (first * second).sum(dim=1) / temperature
    similarity = cross_view_similarity(projections, temperature)
    image = torch.arange(len(first), device=first.device).repeat(2)
    same = image[:, None] == image[None, :]
    return Pairs(positives.repeat(2), similarity.masked_fill(same, float("-inf")))


def positive_first(
    queries: torch.Tensor, keys: torch.Tensor, negatives: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Logits of each query with its key, then with all negatives (MoCo, eq. 1).

    Args:
        queries: (b, d) of length 1.
        keys: (b, d) of length 1, the positive of each query.
        negatives: (k, d) of length 1, of all queries.
        temperature: Above 0.

    Returns:
        (b, 1 + k) float32; the positive is column 0.
    """
    positive = (queries * keys).sum(dim=1, keepdim=True)
    return torch.cat([positive, exact_product(queries, negatives)], dim=1) / temperature


def first_found(logits: torch.Tensor) -> torch.Tensor:
    """Mean of minus the log-softmax at column 0 of logits (b, k), at least 0."""
    return (torch.logsumexp(logits, dim=1) - logits[:, 0]).mean()


def pair_log_softmax(similarity: Similarities, positives: torch.Tensor) -> torch.Tensor:
    """Mean log-probability of each row's positives under a softmax over the row.

    Args:
        similarity: (n, n) float32, minus infinity where a pair does not count.
        positives: (n, n) bool; True needs a finite similarity.

    Returns:
        (n,); 0 for a row without positives.
    """
    log_probability = torch.log_softmax(similarity, dim=1)
    # -inf * 0 is NaN, so pairs that do not count are taken out before the sum.
    kept = log_probability.masked_fill(~positives, 0.0).sum(dim=1)
    return kept / positives.sum(dim=1).clamp(min=1)


def squared_distances(vectors: torch.Tensor) -> torch.Tensor:
    """Squared distances of all pairs of different rows.

    Args:
        vectors: (n, d) float.

    Returns:
        (n * (n - 1),) float32, at least 0; each pair is there in both orders.
    """
    squares = vectors.float().square().sum(dim=1)
    square = squares[:, None] + squares[None, :] - 2 * exact_product(vectors, vectors)
    others = ~torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    return square[others].clamp(min=0)


def log_mean_exp(values: torch.Tensor) -> torch.Tensor:
    """Logarithm of the mean of the exponentials of all values, without overflow."""
    flat = values.flatten()
    return torch.logsumexp(flat, dim=0) - math.log(len(flat))
