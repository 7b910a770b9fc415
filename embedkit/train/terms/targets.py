"""Targets: cross entropy against a distribution, not one class, and the way between two."""

import torch

__all__ = ["divergence", "soft_cross_entropy"]


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


def divergence(expected: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    """Kullback-Leibler divergence of each row's softmax from the expected one, float32.

    Args:
        expected: Logits (..., c); the gradient passes through them too.
        found: Logits (..., c).

    Returns:
        (...) of at least 0 but for rounding: ``sum(p * (log p - log q))``.

    Example:
        >>> divergence(torch.tensor([0.0, 0.0]), torch.tensor([0.0, 0.0]))
        tensor(0.)
    """
    expected_log = torch.log_softmax(expected.float(), dim=-1)
    found_log = torch.log_softmax(found.float(), dim=-1)
    return (expected_log.exp() * (expected_log - found_log)).sum(dim=-1)
