"""What every objective does to projections first: check their shape, bring them to length 1."""

import torch
from torch.nn import functional

from embedkit.errors import InvalidInput
from embedkit.train.batch import Projections

__all__ = ["check_views", "exact_product", "unit"]


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


def exact_product(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Inner products of all rows of one matrix with all of another, in float32.

    Autocast would compute them in bfloat16, whose 8 bits are too few once a low temperature
    or a difference of near equals follows.

    Args:
        first: (n, d).
        second: (m, d).

    Returns:
        (n, m) float32.
    """
    with torch.autocast(first.device.type, enabled=False):
        return first.float() @ second.float().T
