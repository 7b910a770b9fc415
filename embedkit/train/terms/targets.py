"""Targets: cross entropy against a distribution, not one class."""

import torch

__all__ = ["soft_cross_entropy"]


def soft_cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross entropy ``-sum(targets * log_softmax(logits))`` of each row, float32.

    Args:
        logits: (..., c) float.
        targets: (..., c), at least 0 with sum 1; no gradient passes through them.

    Example:
        >>> soft_cross_entropy(torch.zeros(1, 2), torch.tensor([[0.5, 0.5]]))
        tensor([0.6931])
    """
    return -(targets.detach() * torch.log_softmax(logits.float(), dim=-1)).sum(dim=-1)
