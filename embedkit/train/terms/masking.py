"""Masking: which patches a student is not shown."""

import torch
from torch.nn import functional

__all__ = ["hide_blobs", "hide_scattered"]


def hide_scattered(
    grid: tuple[int, int], count: int, share: float, generator: torch.Generator
) -> torch.Tensor:
    """Hide patches drawn evenly without replacement.

    Args:
        grid: Rows and columns of patches.
        count: Images.
        share: Of the patches; at least one is hidden and one is left.
        generator: Source of the draw; the result is on its device.

    Returns:
        (count, rows * columns) bool, True where hidden, as many in every row.
    """
    return _largest(_noise(grid, count, generator).flatten(1), share)


def hide_blobs(
    grid: tuple[int, int], count: int, share: float, generator: torch.Generator
) -> torch.Tensor:
    """Hide patches in connected areas: where noise, averaged over 3 x 3 patches, is largest.

    Args:
        grid: Rows and columns of patches.
        count: Images.
        share: Of the patches; at least one is hidden and one is left.
        generator: Source of the draw; the result is on its device.

    Returns:
        (count, rows * columns) bool, True where hidden, as many in every row.
    """
    noise = _noise(grid, count, generator)
    # Averages at the edge are over fewer patches, so that edges are as variable as the middle.
    smooth = functional.avg_pool2d(noise, 3, stride=1, padding=1, count_include_pad=False)
    return _largest(smooth.flatten(1), share)


def _noise(grid: tuple[int, int], count: int, generator: torch.Generator) -> torch.Tensor:
    shape = (count, 1, *grid)
    return torch.rand(shape, generator=generator, device=generator.device)


def _largest(scores: torch.Tensor, share: float) -> torch.Tensor:
    """The share of each row with the largest scores."""
    patches = scores.shape[1]
    hidden = min(max(1, round(share * patches)), max(1, patches - 1))
    places = scores.topk(hidden, dim=1).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, places, True)
