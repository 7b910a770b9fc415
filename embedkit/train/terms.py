"""Terms that several objectives share. All compute in float32, whatever comes in."""

from typing import Annotated

import torch
from torch.nn import functional

from embedkit.errors import InvalidInput
from embedkit.train.objective import Projections

__all__ = [
    "check_views",
    "covariance_penalty",
    "cross_view_similarity",
    "pair_log_softmax",
    "unit",
    "variance_hinge",
]

Similarities = Annotated[torch.Tensor, "n n"]


def check_views(projections: Projections, *, views: int, name: str) -> None:
    """Check the shape that an objective is given.

    Args:
        projections: (v, b, d).
        views: Number of views that the objective compares.
        name: The objective, for the message.

    Raises:
        InvalidInput: If the number of views differs, or there are fewer than two images.
    """
    if projections.ndim != 3 or projections.shape[0] != views:
        raise InvalidInput(
            f"expected projections of {views} views as (v, b, d) for {name}, "
            f"got shape {tuple(projections.shape)}"
        )
    if projections.shape[1] < 2:
        raise InvalidInput(
            f"expected at least 2 images in a batch for {name}, got {projections.shape[1]}; "
            "raise schedule.batch_size"
        )


def unit(vectors: torch.Tensor) -> torch.Tensor:
    """The vectors in float32 at length 1 along the last axis; zero stays zero."""
    return functional.normalize(vectors.float(), dim=-1)


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
    # Autocast would do this product in bfloat16, and at temperature 0.1 its 8 bits are too few.
    with torch.autocast(z.device.type, enabled=False):
        similarity = z @ z.T / temperature
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    return similarity.masked_fill(itself, float("-inf"))


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


def variance_hinge(z: torch.Tensor, spread: float, epsilon: float = 1e-4) -> torch.Tensor:
    """VICReg equations 1 and 2: mean over dimensions of ``max(0, spread - std)``.

    Args:
        z: (b, d) float, b >= 2.
        spread: Standard deviation below which a dimension is penalised.
        epsilon: Added to the variance, so that the root has a gradient at 0.
    """
    deviation = torch.sqrt(z.float().var(dim=0) + epsilon)
    return torch.relu(spread - deviation).mean()


def covariance_penalty(z: torch.Tensor) -> torch.Tensor:
    """VICReg equations 3 and 4: sum of squared off-diagonal covariances over d.

    Args:
        z: (b, d) float, b >= 2.
    """
    centred = z.float() - z.float().mean(dim=0)
    with torch.autocast(z.device.type, enabled=False):
        covariance = centred.T @ centred / (len(z) - 1)
    off_diagonal = covariance - torch.diag(torch.diagonal(covariance))
    return off_diagonal.square().sum() / z.shape[1]
